//! Stands between two parts and misbehaves when it is told to: slow, cut, half-open, failing, answering twice, or letting one
//! answer vanish. One for each process and database, so that it is known whose connection it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const CHUNK: usize = 64 << 10;

/// How it treats what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every chunk waits, in both directions.
    Slow(Duration),
    /// New connections are refused, and open ones were closed.
    Cut,
    /// Connections stand and take bytes, and nothing arrives: as if the other machine had lost its power.
    HalfOpen,
    /// Each request is answered with an error of the proxy's own, and goes nowhere.
    Fail,
    /// What is answered is answered again a moment later.
    Twice,
}

/// What [`Mode::Fail`] answers, as the payment provider would.
const FAILURE: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                         {\"error\": {\"type\": \"api_error\"}}";
/// Long enough for another caller to use the connection.
const A_MOMENT: Duration = Duration::from_millis(2);

/// What to wait for. It happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Postgres has executed the COMMIT of a transaction in which this text was sent; its answer vanishes.
    Commit(&'static str),
    /// The relay of an outbox has read events; it never sees them.
    RelayRead,
    /// The relay of an outbox is about to delete what the broker acknowledged; Postgres never hears of it.
    RelayDelete,
    /// The other side has answered a request with this text in it; the answer vanishes.
    Answer(&'static str),
}

/// A connection at its moment. It stands still until this is dropped, and is then closed.
pub(crate) type Held = DropGuard;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What a fault waits for.
struct Trap {
    number: u64,
    moment: Moment,
    send: oneshot::Sender<Held>,
}

/// A moment that a fault stopped waiting for must not come later, in the middle of something else.
struct Disarm<'a>(&'a Shared, u64);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.traps().retain(|trap| trap.number != self.1);
    }
}

struct Shared {
    upstreams: Vec<u16>,
    next: AtomicUsize,
    mode: watch::Sender<Mode>,
    numbers: AtomicU64,
    traps: Mutex<Vec<Trap>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Connections go to the upstreams in turn, to those that take them.
    pub(crate) async fn open(upstreams: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mode = watch::Sender::new(Mode::Pass);
        let (next, numbers, traps) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { upstreams, next, mode, numbers, traps });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().carry(client));
            }
        });
        Ok(Self { port, shared, task })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Comes back when the moment has come, with the connection that it came for.
    pub(crate) async fn wait_for(&self, moment: Moment) -> Result<Held> {
        let (send, held) = oneshot::channel();
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        self.shared.traps().push(Trap { number, moment, send });
        let _disarm = Disarm(&self.shared, number);
        held.await.context("the other side was gone at the moment")
    }
}

impl Shared {
    fn traps(&self) -> std::sync::MutexGuard<'_, Vec<Trap>> {
        self.traps.lock().expect("nothing panics while it holds this lock")
    }

    /// The trap that was set for this, if there is one. It is not waited for any more.
    fn spring(&self, is_it: impl Fn(Moment) -> bool) -> Option<Trap> {
        let mut traps = self.traps();
        let at = traps.iter().position(|trap| is_it(trap.moment))?;
        Some(traps.remove(at))
    }

    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for at in 0..self.upstreams.len() {
            let port = self.upstreams[(first + at) % self.upstreams.len()];
            if let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await {
                return Some(server);
            }
        }
        None
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let mut mode = self.mode.subscribe();
        if *mode.borrow_and_update() == Mode::Cut {
            return;
        }
        let Some(mut server) = self.connect().await else { return };
        // Latency is what a test adds, not what the kernel does.
        if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
            return;
        }
        let (mut asked, mut answered) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut watched = Watched::default();
        loop {
            let now = *mode.borrow_and_update();
            if now == Mode::Cut {
                return;
            }
            tokio::select! {
                changed = mode.changed() => if changed.is_err() { return },
                read = client.read(&mut asked), if now != Mode::HalfOpen => {
                    let Ok(count @ 1..) = read else { return };
                    let bytes = &asked[..count];
                    if let Some(trap) = self.due(&mut watched, bytes) {
                        return self.hold(trap, bytes, &mut client, &mut server).await;
                    }
                    if now == Mode::Fail {
                        let _ = client.write_all(FAILURE).await;
                        return;
                    }
                    delay(now).await;
                    if server.write_all(bytes).await.is_err() { return }
                }
                read = server.read(&mut answered), if now != Mode::HalfOpen => {
                    let Ok(count @ 1..) = read else { return };
                    watched.has_rows |= count > ROWS;
                    if let Some(trap) = self.has_read(&watched) {
                        return stand_still(trap.send).await;
                    }
                    delay(now).await;
                    if client.write_all(&answered[..count]).await.is_err() { return }
                    if now == Mode::Twice {
                        tokio::time::sleep(A_MOMENT).await;
                        if client.write_all(&answered[..count]).await.is_err() { return }
                    }
                }
            }
        }
    }

    /// What is waited for, if it comes with these bytes of the client.
    fn due(&self, watched: &mut Watched, asked: &[u8]) -> Option<Trap> {
        // Nothing is in everything.
        let contains = |text: &str| text.is_empty() || asked.windows(text.len()).any(|it| it == text.as_bytes());
        // Only the relay's session is ended by its silence.
        watched.is_relay |= contains("idle_session_timeout");
        let had_rows = std::mem::take(&mut watched.has_rows);
        let commits = contains("COMMIT\0");
        let sprung = self.spring(|moment| match moment {
            Moment::Commit(text) => commits && (text.is_empty() || watched.sent.contains(&text)),
            Moment::RelayDelete => watched.is_relay && had_rows,
            Moment::Answer(text) => contains(text),
            Moment::RelayRead => false,
        });
        if commits || contains("BEGIN\0") {
            watched.sent.clear();
        } else {
            let new = |text: &&str| !watched.sent.contains(text) && contains(text);
            let new: Vec<_> = TEXTS.into_iter().filter(new).collect();
            watched.sent.extend(new);
        }
        sprung
    }

    /// Whether a relay is about to see what it read, and that is what is waited for.
    fn has_read(&self, watched: &Watched) -> Option<Trap> {
        self.spring(|moment| watched.is_relay && watched.has_rows && moment == Moment::RelayRead)
    }

    async fn hold(&self, trap: Trap, asked: &[u8], client: &mut TcpStream, server: &mut TcpStream) {
        if trap.moment != Moment::RelayDelete {
            // The other side does it and answers; the answer is dropped.
            let mut answer = vec![0; CHUNK];
            let answered = async {
                server.write_all(asked).await?;
                server.read(&mut answer).await
            };
            tokio::select! {
                answered = answered => if answered.is_err() { return },
                // The caller had less patience than this answer takes: its moment is still to come.
                () = leaves(client) => return self.set_again(trap),
            }
        }
        stand_still(trap.send).await;
    }

    fn set_again(&self, trap: Trap) {
        let mut traps = self.traps();
        if !trap.send.is_closed() {
            traps.push(trap);
        }
    }
}

/// Comes back when the other side has closed the connection.
async fn leaves(client: &mut TcpStream) {
    let mut ignored = [0; 1_024];
    while matches!(client.read(&mut ignored).await, Ok(1..)) {}
}

async fn stand_still(send: oneshot::Sender<Held>) {
    let released = CancellationToken::new();
    if send.send(released.clone().drop_guard()).is_ok() {
        released.cancelled().await;
    }
}

/// An answer with rows of an outbox is longer than one without.
const ROWS: usize = 200;

/// By what transactions are told apart. An RPC stores its answer under the name of its request.
pub(crate) const CREATE_ORDER: &str = "CreateOrderRequest";
/// A consumer tells its inbox its name: a text, after its length.
pub(crate) const INVENTORY_TAKES_IN: &str = "\0\0\0\x09inventory";
pub(crate) const PAYMENT_TAKES_IN: &str = "\0\0\0\x07payment";
pub(crate) const ORDER_TAKES_IN: &str = "\0\0\0\x05order";
const TEXTS: [&str; 4] = [CREATE_ORDER, INVENTORY_TAKES_IN, PAYMENT_TAKES_IN, ORDER_TAKES_IN];

/// What is known of one connection.
#[derive(Default)]
struct Watched {
    is_relay: bool,
    has_rows: bool,
    /// Which of [`TEXTS`] it has sent in the transaction that is open.
    sent: Vec<&'static str>,
}

async fn delay(mode: Mode) {
    if let Mode::Slow(by) = mode {
        tokio::time::sleep(by).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    /// Answers each chunk with the same.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = client.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
        port
    }

    async fn say(client: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        client.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        client.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_passes_until_it_is_told_otherwise() {
        let proxy = Proxy::open(vec![1, echo().await]).await.expect("opened");
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port));
        let mut client = connect().await.expect("there");
        assert_eq!(say(&mut client, b"hello").await.expect("an echo, although the first upstream is away"), b"hello");
        proxy.set(Mode::HalfOpen);
        let silent = tokio::time::timeout(Duration::from_millis(200), say(&mut client, b"hello")).await;
        assert!(silent.is_err(), "nothing arrives");
        proxy.set(Mode::Cut);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0, "cut off");
        proxy.set(Mode::Pass);
        let mut client = connect().await.expect("there");
        assert_eq!(say(&mut client, b"again").await.expect("an echo"), b"again");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_waits_for_any_more_is_not_the_one_that_vanishes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Proxy::open(vec![listener.local_addr().expect("an address").port()]).await.expect("opened");
        let mut vanished = Box::pin(proxy.wait_for(Moment::Answer("capture")));
        assert!(poll_immediate(&mut vanished).await.is_none(), "nobody has asked yet");
        let ask = async || {
            let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("there");
            let mut server = listener.accept().await.expect("a connection").0;
            client.write_all(b"capture").await.expect("taken");
            server.read_exact(&mut [0; 7]).await.expect("it arrives");
            (client, server)
        };
        let (client, mut server) = ask().await;
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).await.unwrap_or(0), 0, "the proxy has left, too");
        let (_client, mut server) = ask().await;
        server.write_all(b"captured").await.expect("taken");
        vanished.await.map(drop).expect("its moment came");
    }

    #[tokio::test]
    async fn one_answer_vanishes_and_its_request_did_arrive() {
        let proxy = Proxy::open(vec![echo().await]).await.expect("opened");
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("there");
        let asking = async {
            say(&mut client, b"first").await.expect("an echo");
            say(&mut client, b"Q COMMIT\0").await
        };
        let (held, answer) = tokio::join!(async { proxy.wait_for(Moment::Commit("")).await.map(drop) }, asking);
        held.expect("its moment came");
        assert!(answer.is_err(), "the connection ended without an answer");

        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("there");
        let (held, answer) =
            tokio::join!(async { proxy.wait_for(Moment::Answer("")).await.map(drop) }, say(&mut client, b"anything"));
        held.expect("its moment came");
        assert!(answer.is_err(), "whatever is asked");

        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("there");
        let given_up = tokio::time::timeout(Duration::from_millis(50), proxy.wait_for(Moment::Commit(""))).await;
        assert!(given_up.is_err(), "nobody commits");
        assert_eq!(say(&mut client, b"Q COMMIT\0").await.expect("nobody waits for it any more"), b"Q COMMIT\0");
    }
}
