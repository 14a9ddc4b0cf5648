mod replicas;

use std::convert::Infallible;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;
use crate::rpc::breaker::FAIR_TIME;
use crate::tls::{Mode, Tls};

const TEST: Role = Role { name: "test", domain: "souk.test", number: 0, has_database: false };

fn certificates() -> Certificates {
    let prefix = Some("spiffe://cluster.local/ns/souk/sa/".parse().expect("a prefix"));
    Certificates::new(&Tls { mode: Mode::Mesh, mesh_prefix: prefix, directory: ".".into(), callers: vec![] })
}

fn mesh() -> Identity {
    certificates().of(TEST.name).expect("no certificate is needed")
}

/// A peer that is spoken to in plain text.
fn in_a_mesh(url: &str) -> Peer {
    connect(&certificates(), TEST, TEST, &url.parse().expect("a URL")).expect("no certificate is needed")
}

async fn ask(peer: &Peer, patience: Duration) -> Result<HealthCheckResponse, Status> {
    let message = HealthCheckRequest { service: String::new() };
    let request = request(Instant::now() + patience, message, Route::default());
    HealthClient::new(peer.clone()).check(request).await.map(Response::into_inner)
}

/// A peer that accepts connections, and what it does with each.
async fn peer<F: Future<Output = Infallible> + Send + 'static>(then: fn(TcpStream) -> F) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(then(stream));
        }
    });
    in_a_mesh(&url)
}

#[tokio::test]
async fn a_connection_that_closes_during_a_call_is_not_a_timeout() {
    // One peer closes at once, so that some calls are not sent; the other closes when it has the request.
    let at_once = peer(|stream| async move {
        drop(stream);
        std::future::pending().await
    });
    let with_request = peer(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
        drop(stream);
        std::future::pending().await
    });
    let mut codes = Vec::new();
    for peer in [at_once.await, with_request.await] {
        for _ in 0..5 {
            let status = ask(&peer, Duration::from_secs(5)).await.expect_err("there is no response");
            assert!(is_lost(&status), "{status:?}");
            codes.push(status.code());
            assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
        }
    }
    assert!(codes.contains(&Code::Cancelled), "{codes:?}");
}

/// Sends GOAWAY, as a stopping peer does, for a request that it does not process any more.
async fn go_away(stream: &mut TcpStream) -> std::io::Result<()> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const DATA: u8 = 0;
    stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await?;
    stream.write_all(&SETTINGS).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == DATA {
            return stream.write_all(&GOAWAY).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_a_stopping_peer_does_not_process_is_lost() {
    let peer = peer(|mut stream| async move {
        go_away(&mut stream).await.expect("a client of HTTP/2");
        std::future::pending().await
    });
    let status = ask(&peer.await, Duration::from_secs(5)).await.expect_err("there is no response");
    assert_eq!(status.code(), Code::Internal, "which is what tonic makes of it");
    assert!(is_lost(&status), "{status:?}");
    assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
}

/// A peer that responds to each call with DEADLINE_EXCEEDED.
struct Late;

#[tonic::async_trait]
impl Health for Late {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Err(Status::deadline_exceeded("too late"))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn late() -> Peer {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let url = format!("http://{}", incoming.local_addr().expect("an address"));
    tokio::spawn(Server::builder().add_service(HealthServer::new(Late)).serve_with_incoming(incoming));
    in_a_mesh(&url)
}

async fn silent() -> Peer {
    peer(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await
}

fn is_circuit_open(status: &Status) -> bool {
    matches!(peer_error(status), Some(PeerError::CircuitOpen(_)))
}

#[tokio::test]
async fn short_deadlines_do_not_open_the_circuit() {
    for peer in [silent().await, late().await] {
        for _ in 0..30 {
            let status = ask(&peer, Duration::from_millis(10)).await.expect_err("it times out");
            assert!(!is_circuit_open(&status), "{status:?}");
            assert!(matches!(failed("test", status), Error::DeadlineExceeded));
        }
    }
}

#[tokio::test]
async fn calls_with_a_fair_timeout_open_the_circuit_of_a_peer_that_hangs() {
    let peer = silent().await;
    let calls: JoinSet<_> = (0..10)
        .map(|_| {
            let peer = peer.clone();
            async move { ask(&peer, FAIR_TIME * 2).await }
        })
        .collect();
    for outcome in calls.join_all().await {
        assert!(matches!(failed("test", outcome.expect_err("there is no response")), Error::DeadlineExceeded));
    }
    let status = ask(&peer, FAIR_TIME * 2).await.expect_err("there is no response");
    assert!(is_circuit_open(&status) && !is_lost(&status), "{status:?}");
    assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
}

#[tokio::test]
async fn a_call_without_time_is_not_sent() {
    // No server listens there.
    let peer = in_a_mesh("http://127.0.0.1:1");
    let status = ask(&peer, Duration::ZERO).await.expect_err("it is not made");
    assert!(matches!(peer_error(&status), Some(PeerError::NoTimeLeft)), "{status:?}");
    assert!(matches!(failed("test", status), Error::DeadlineExceeded));
}

#[tokio::test]
async fn a_peer_that_does_not_respond_is_a_timeout() {
    let status = ask(&silent().await, Duration::from_millis(50)).await.expect_err("there is no response");
    assert!(!is_lost(&status), "{status:?}");
    assert!(matches!(failed("test", status), Error::DeadlineExceeded));
}
