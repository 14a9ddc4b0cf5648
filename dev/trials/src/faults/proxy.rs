//! A TCP proxy that injects faults: slow, cut, half-open, failing, duplicate responses, or one lost response. Each process and
//! database has its own, so that it is known whose connection it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::deliveries::{Accepted, Conversation};
use super::moment::{Moment, ROWS, TEXTS, Watched};
use super::tls::Interceptor;

const CHUNK: usize = 64 << 10;

/// How it treats traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every chunk is delayed, in both directions.
    Slow(Duration),
    /// Connections are closed, and new ones are refused.
    Cut,
    /// Connections stay open, but nothing arrives: as if the other machine had lost its power.
    HalfOpen,
    /// The proxy answers each request with an error and does not pass it on.
    Fail,
    /// Each response is sent again a moment later.
    Twice,
}

/// The response of [`Mode::Fail`], in the format of the payment provider.
const FAILURE: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
                         {\"error\": {\"type\": \"api_error\"}}";
/// Long enough for another call on the connection.
const A_MOMENT: Duration = Duration::from_millis(2);

/// A connection that is held. It is closed when this is dropped.
pub(crate) type Held = DropGuard;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// A fault waits for a moment.
struct Breakpoint {
    number: u64,
    moment: Moment,
    send: oneshot::Sender<Held>,
}

/// Removes a breakpoint that a fault does not wait for any more, so that it does not affect another fault.
struct Disarm<'a>(&'a Shared, u64);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.breakpoints().retain(|breakpoint| breakpoint.number != self.1);
    }
}

struct Shared {
    upstreams: Vec<u16>,
    tls: Option<Interceptor>,
    accepted: Option<Accepted>,
    next: AtomicUsize,
    mode: watch::Sender<Mode>,
    numbers: AtomicU64,
    breakpoints: Mutex<Vec<Breakpoint>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Connections go to the upstreams in turn, skipping those that refuse. `tls`: they are those of roles.
    pub(crate) async fn open(upstreams: Vec<u16>, tls: Option<Interceptor>) -> Result<Self> {
        Self::listen(upstreams, tls, None).await
    }

    /// Before a server of messages.
    pub(crate) async fn counting(upstream: u16, accepted: Accepted) -> Result<Self> {
        Self::listen(vec![upstream], None, Some(accepted)).await
    }

    async fn listen(upstreams: Vec<u16>, tls: Option<Interceptor>, accepted: Option<Accepted>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mode = watch::Sender::new(Mode::Pass);
        let (next, numbers, breakpoints) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { upstreams, tls, accepted, next, mode, numbers, breakpoints });
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

    /// Waits for a moment, and holds the connection there.
    pub(crate) async fn wait_for(&self, moment: Moment) -> Result<Held> {
        let (send, held) = oneshot::channel();
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        self.shared.breakpoints().push(Breakpoint { number, moment, send });
        let _disarm = Disarm(&self.shared, number);
        held.await.context("the connection was lost at the moment")
    }
}

impl Shared {
    fn breakpoints(&self) -> std::sync::MutexGuard<'_, Vec<Breakpoint>> {
        self.breakpoints.lock().expect("nothing panics while it holds this lock")
    }

    /// Removes and returns the breakpoint of this moment, if there is one.
    fn hit(&self, is_it: impl Fn(Moment) -> bool) -> Option<Breakpoint> {
        let mut breakpoints = self.breakpoints();
        let at = breakpoints.iter().position(|breakpoint| is_it(breakpoint.moment))?;
        Some(breakpoints.remove(at))
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

    async fn carry(self: Arc<Self>, client: TcpStream) {
        let mut mode = self.mode.subscribe();
        if *mode.borrow_and_update() == Mode::Cut {
            return;
        }
        let Some(server) = self.connect().await else { return };
        // Only the mode adds latency, not Nagle's algorithm.
        if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
            return;
        }
        let (mut client, mut server) = match &self.tls {
            None => (Either::Right(client), Either::Right(server)),
            Some(tls) => match tls.handshake(client, server).await {
                Ok((client, server)) => (Either::Left(client), Either::Left(server)),
                Err(_) => return,
            },
        };
        let (mut request, mut response) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut watched = Watched::default();
        let mut conversation = self.accepted.as_ref().map(Accepted::conversation);
        loop {
            let now = *mode.borrow_and_update();
            if now == Mode::Cut {
                return;
            }
            tokio::select! {
                changed = mode.changed() => if changed.is_err() { return },
                read = client.read(&mut request), if now != Mode::HalfOpen => {
                    let Ok(count @ 1..) = read else { return };
                    let bytes = &request[..count];
                    if let Some(conversation) = &mut conversation {
                        conversation.sent(bytes);
                    }
                    if let Some(breakpoint) = self.hit_by_request(&mut watched, bytes) {
                        return self.hold(breakpoint, bytes, &mut client, &mut server, conversation).await;
                    }
                    if now == Mode::Fail {
                        let _ = send(&mut client, FAILURE).await;
                        return;
                    }
                    delay(now).await;
                    if send(&mut server, bytes).await.is_err() { return }
                }
                read = server.read(&mut response), if now != Mode::HalfOpen => {
                    let Ok(count @ 1..) = read else { return };
                    if let Some(conversation) = &mut conversation {
                        conversation.replied(&response[..count]);
                    }
                    watched.has_rows |= count > ROWS;
                    if let Some(breakpoint) = self.hit_by_events(&watched) {
                        return hold_open(breakpoint.send).await;
                    }
                    delay(now).await;
                    if send(&mut client, &response[..count]).await.is_err() { return }
                    if now == Mode::Twice {
                        tokio::time::sleep(A_MOMENT).await;
                        if send(&mut client, &response[..count]).await.is_err() { return }
                    }
                }
            }
        }
    }

    /// The breakpoint that these bytes of the client hit, if any.
    fn hit_by_request(&self, watched: &mut Watched, request: &[u8]) -> Option<Breakpoint> {
        // The empty text is in every request.
        let contains = |text: &str| text.is_empty() || request.windows(text.len()).any(|it| it == text.as_bytes());
        // Only a relay sets a timeout for idle sessions.
        watched.is_relay |= contains("idle_session_timeout");
        let had_rows = std::mem::take(&mut watched.has_rows);
        let commits = contains("COMMIT\0");
        let hit = self.hit(|moment| match moment {
            Moment::Commit(text) => commits && (text.is_empty() || watched.sent.contains(&text)),
            Moment::RelayDelete => watched.is_relay && had_rows,
            Moment::Response(text) => contains(text),
            Moment::RelayRead => false,
        });
        if commits || contains("BEGIN\0") {
            watched.sent.clear();
        } else {
            let new = |text: &&str| !watched.sent.contains(text) && contains(text);
            let new: Vec<_> = TEXTS.into_iter().filter(new).collect();
            watched.sent.extend(new);
        }
        hit
    }

    /// The breakpoint that a response with events to a relay hits, if any.
    fn hit_by_events(&self, watched: &Watched) -> Option<Breakpoint> {
        self.hit(|moment| watched.is_relay && watched.has_rows && moment == Moment::RelayRead)
    }

    async fn hold<C, S>(
        &self,
        breakpoint: Breakpoint,
        request: &[u8],
        client: &mut C,
        server: &mut S,
        conversation: Option<Conversation>,
    ) where
        C: AsyncRead + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if breakpoint.moment != Moment::RelayDelete {
            // The server executes it and answers; the response is dropped.
            let mut answer = vec![0; CHUNK];
            let answered = async {
                send(server, request).await?;
                let count = server.read(&mut answer).await?;
                if let Some(mut conversation) = conversation {
                    conversation.replied(&answer[..count]);
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                answered = answered => if answered.is_err() { return },
                // The caller timed out before the response, so this was not the moment.
                () = until_closed(client) => return self.set_again(breakpoint),
            }
        }
        hold_open(breakpoint.send).await;
    }

    fn set_again(&self, breakpoint: Breakpoint) {
        let mut breakpoints = self.breakpoints();
        if !breakpoint.send.is_closed() {
            breakpoints.push(breakpoint);
        }
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Waits until the client has closed the connection.
async fn until_closed(client: &mut (impl AsyncRead + Unpin)) {
    let mut ignored = [0; 1_024];
    while matches!(client.read(&mut ignored).await, Ok(1..)) {}
}

async fn hold_open(send: oneshot::Sender<Held>) {
    let released = CancellationToken::new();
    if send.send(released.clone().drop_guard()).is_ok() {
        released.cancelled().await;
    }
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

    /// A server that answers each chunk with the same bytes.
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
    async fn it_passes_until_its_mode_changes() {
        let proxy = Proxy::open(vec![1, echo().await], None).await.expect("opened");
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
    async fn a_response_whose_caller_has_left_is_not_the_one_that_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Proxy::open(vec![listener.local_addr().expect("an address").port()], None).await.expect("opened");
        let mut vanished = Box::pin(proxy.wait_for(Moment::Response("capture")));
        assert!(poll_immediate(&mut vanished).await.is_none(), "there is no request yet");
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
    async fn one_response_is_lost_and_its_request_did_arrive() {
        let proxy = Proxy::open(vec![echo().await], None).await.expect("opened");
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
            tokio::join!(async { proxy.wait_for(Moment::Response("")).await.map(drop) }, say(&mut client, b"anything"));
        held.expect("its moment came");
        assert!(answer.is_err(), "for any request");

        let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("there");
        let given_up = tokio::time::timeout(Duration::from_millis(50), proxy.wait_for(Moment::Commit(""))).await;
        assert!(given_up.is_err(), "there is no commit");
        assert_eq!(say(&mut client, b"Q COMMIT\0").await.expect("the breakpoint was removed"), b"Q COMMIT\0");
    }
}
