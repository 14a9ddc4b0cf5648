//! The attacks. Each runs until it is dropped, from one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};
use stack::client::{Client, random_password};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

/// The attacker's address, which is not that of the client whose reads are measured.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 6, 66));
/// Until an attacker connects again, when the edge has ended or refused its connection.
const AGAIN: Duration = Duration::from_millis(50);
/// The same, of an attacker that wants to be slow. Connecting as fast as one is refused would be another attack.
const SLOWLY: Duration = Duration::from_secs(1);
/// The same, of thousands that do nothing, which otherwise only showed the speed of this program.
const IDLY: Duration = Duration::from_secs(5);

type Running = Pin<Box<dyn Future<Output = Result<()>>>>;

pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// How many times as long reads of others may take.
    pub(super) slowdown: f64,
    /// Whether Souk is to compute for the attacker all the time, on threads of the lowest priority. As far as a busy processor alone slows
    /// down others, which differs between machines, that is no fault of Souk.
    pub(super) computes: bool,
    pub(super) run: fn(Arc<Target>) -> Running,
}

/// No attack, but a busy processor.
pub(super) static COMPUTING: Attack = Attack {
    name: "computing",
    what: "a thread of the lowest priority that only computes",
    slowdown: f64::INFINITY,
    computes: true,
    run: |_| {
        Box::pin(async {
            loop {
                tokio::task::yield_now().await;
            }
        })
    },
};

pub(super) static ATTACKS: [Attack; 7] = [
    Attack {
        name: "slow-loris",
        what: "400 connections, each of which sends a byte of its headers per second, and which are opened again",
        slowdown: 2.0,
        computes: false,
        run: |target| Box::pin(together(400, SLOWLY, target, slow_loris)),
    },
    Attack {
        name: "idle-connections",
        what: "10,000 connections that send nothing",
        slowdown: 2.0,
        computes: false,
        run: |target| Box::pin(together(10_000, IDLY, target, idle)),
    },
    Attack {
        name: "rapid-reset",
        what: "4 connections that open HTTP/2 streams and reset them at once",
        slowdown: 2.0,
        computes: false,
        run: |target| Box::pin(together(4, AGAIN, target, rapid_reset)),
    },
    Attack {
        name: "large-bodies",
        what: "8 connections that send bodies of 100 MB",
        slowdown: 2.0,
        computes: false,
        run: |target| Box::pin(together(8, AGAIN, target, large_body)),
    },
    Attack {
        name: "deep-json",
        what: "8 connections that send JSON of a depth of 100,000, with a token",
        slowdown: 2.0,
        computes: false,
        run: |target| Box::pin(together(8, AGAIN, target, deep_json)),
    },
    Attack {
        name: "login-flood",
        what: "200 guesses per second at accounts that do not exist, from ever new addresses, while an owner signs in",
        slowdown: 1.5,
        computes: true,
        run: |target| {
            Box::pin(async move {
                let owner = sign_in_for_ever(target.clone());
                tokio::try_join!(together(200, AGAIN, target, guess), owner).map(drop)
            })
        },
    },
    Attack {
        name: "known-device-flood",
        what: "200 logins per second to one account as its known device, from ever new addresses, while the owner of another \
               account signs in",
        slowdown: 1.5,
        computes: true,
        run: |target| {
            Box::pin(async move {
                let owner = sign_in_for_ever(target.clone());
                tokio::try_join!(together(200, AGAIN, target, sign_in_often), owner).map(drop)
            })
        },
    },
];

/// The edge, and what it did to the attacker.
pub(super) struct Target {
    edge: SocketAddr,
    token: String,
    owner: Owner,
    attacker: Owner,
    /// Of the addresses of attackers that guess.
    addresses: AtomicU32,
    connections: AtomicU64,
    closed: AtomicU64,
    requests: AtomicU64,
    responses: AtomicU64,
    signed_in: AtomicU64,
    kept_out: AtomicU64,
}

/// Whose account others do not know, and who has signed in on this device before.
pub(super) struct Owner {
    pub(super) email: String,
    pub(super) password: String,
    pub(super) device_token: String,
}

impl Owner {
    fn login(&self) -> Value {
        json!({"email": self.email, "password": self.password, "deviceToken": self.device_token})
    }
}

pub(super) struct Seen {
    connections: u64,
    closed: u64,
    requests: u64,
    responses: u64,
    signed_in: u64,
    pub(super) kept_out: u64,
}

impl Target {
    pub(super) fn new(port: u16, token: String, [owner, attacker]: [Owner; 2]) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            edge: SocketAddr::from(([127, 0, 0, 1], port)),
            token,
            owner,
            attacker,
            addresses: AtomicU32::new(Ipv4Addr::new(127, 1, 0, 0).to_bits()),
            connections: zero(),
            closed: zero(),
            requests: zero(),
            responses: zero(),
            signed_in: zero(),
            kept_out: zero(),
        }
    }

    /// What was counted since the last time.
    pub(super) fn take(&self) -> Seen {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Seen {
            connections: take(&self.connections),
            closed: take(&self.closed),
            requests: take(&self.requests),
            responses: take(&self.responses),
            signed_in: take(&self.signed_in),
            kept_out: take(&self.kept_out),
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ATTACKER, 0))?;
        let stream = socket.connect(self.edge).await?;
        count(&self.connections);
        Ok(stream)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, closed, requests, responses, signed_in, kept_out } = self;
        write!(
            f,
            "{connections} connections, {closed} of them ended by the edge; {requests} requests, {responses} responses"
        )?;
        if signed_in + kept_out > 0 {
            write!(f, "; the owner of an account signed in {signed_in} times, and could not {kept_out} times")?;
        }
        Ok(())
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Several attackers, each of which begins again when the edge ends its connection.
async fn together<F: Future<Output = Result<()>>>(
    attackers: usize,
    again: Duration,
    target: Arc<Target>,
    attack: impl Fn(Arc<Target>) -> F + Copy,
) -> Result<()> {
    let attackers = (0..attackers).map(|_| {
        let target = target.clone();
        async move {
            loop {
                // An attack fails when the edge ends the connection.
                let _ = attack(target.clone()).await;
                count(&target.closed);
                sleep(again).await;
            }
        }
    });
    join_all(attackers).await;
    Ok(())
}

async fn slow_loris(target: Arc<Target>) -> Result<()> {
    let mut stream = target.connect().await?;
    count(&target.requests);
    stream.write_all(b"GET /v1/products HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
    let (mut input, mut output) = stream.split();
    let mut response = [0; 1_024];
    tokio::select! {
        read = input.read(&mut response) => { if read? > 0 { count(&target.responses) } }
        failed = async { loop {
            if let Err(error) = output.write_all(b"x").await { break error; }
            sleep(Duration::from_secs(1)).await;
        } } => return Err(failed.into()),
    }
    Ok(())
}

async fn idle(target: Arc<Target>) -> Result<()> {
    let mut stream = target.connect().await?;
    Ok(stream.read(&mut [0]).await.map(drop)?)
}

async fn rapid_reset(target: Arc<Target>) -> Result<()> {
    let (client, connection) = h2::client::handshake(target.connect().await?).await?;
    let mut client = client;
    let flood = async {
        loop {
            client = client.clone().ready().await?;
            let request = Request::get("http://souk/v1/products").body(())?;
            let (_response, mut stream) = client.send_request(request, true)?;
            count(&target.requests);
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = connection => Ok(ended?),
        failed = flood => failed,
    }
}

async fn large_body(target: Arc<Target>) -> Result<()> {
    const PIECE: usize = 1 << 16;
    let stream = target.connect().await?;
    let (mut input, mut output) = stream.into_split();
    count(&target.requests);
    output.write_all(b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let piece = [format!("{PIECE:x}\r\n").as_bytes(), &[b' '; PIECE], b"\r\n"].concat();
    let send = async {
        for _ in 0..100_000_000 / PIECE {
            output.write_all(&piece).await?;
        }
        std::future::pending::<Result<()>>().await
    };
    let mut response = [0; 1_024];
    tokio::select! {
        read = input.read(&mut response) => { if read? > 0 { count(&target.responses) } }
        sent = send => return sent,
    }
    Ok(())
}

async fn deep_json(target: Arc<Target>) -> Result<()> {
    let mut stream = target.connect().await?;
    let body = [r#"{"items": "#.to_owned(), "[".repeat(100_000)].concat();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        target.token,
        body.len()
    );
    let mut response = vec![0; 1 << 16];
    loop {
        count(&target.requests);
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let read = stream.read(&mut response).await?;
        anyhow::ensure!(read > 0, "the edge closed the connection");
        count(&target.responses);
    }
}

async fn guess(target: Arc<Target>) -> Result<()> {
    let account =
        || json!({"email": format!("{}@example.com", Uuid::now_v7().simple()), "password": random_password()});
    log_in(&target, account).await
}

async fn sign_in_often(target: Arc<Target>) -> Result<()> {
    log_in(&target, || target.attacker.login()).await
}

/// Once per second, as often as one address may, over one connection. Two hundred of these ask for about twice as many hashes as
/// two cores compute, and leave time for others if hashes do. Against requests that use up the processors before anything is hashed,
/// only the limits of addresses and networks help.
async fn log_in(target: &Target, login: impl Fn() -> Value) -> Result<()> {
    const LOGINS: u32 = 100;
    let address = Ipv4Addr::from_bits(target.addresses.fetch_add(1, Ordering::Relaxed));
    let client = reqwest::Client::builder().local_address(IpAddr::V4(address)).build()?;
    count(&target.connections);
    for _ in 0..LOGINS {
        let next = Instant::now() + Duration::from_secs(1);
        count(&target.requests);
        client.post(format!("http://{}/v1/sessions", target.edge)).json(&login()).send().await?;
        count(&target.responses);
        sleep_until(next).await;
    }
    Ok(())
}

/// The owner is one of the clients that others must not keep out.
async fn sign_in_for_ever(target: Arc<Target>) -> Result<()> {
    let client = Client::new(target.edge.port()).impatient();
    loop {
        let response = client.post("/v1/sessions", target.owner.login()).await?;
        count(if response.status.is_success() { &target.signed_in } else { &target.kept_out });
        // Its own address has a limit, too.
        sleep(Duration::from_secs(2)).await;
    }
}
