//! Calls to other services, with the caller's deadline and trace, our name, and a circuit breaker.

use std::error::Error as _;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, TimeoutExpired};
use tower::{Service, ServiceExt};

use crate::boot::telemetry;
use crate::rpc::admit::SERVICE_HEADER;
use crate::rpc::breaker::{Breaker, CircuitOpen};
use crate::rpc::error::{Error, Unexpected};
use crate::rpc::run_to_end::{MIN_TIME_LEFT, grpc_timeout};

type HttpResponse = http::Response<Body>;
type TransportError = tonic::transport::Error;

/// Another service.
#[derive(Debug, Clone)]
pub struct Peer {
    channel: Channel,
    breaker: Arc<Breaker>,
}

/// Why a peer did not respond.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error(transparent)]
    CircuitOpen(#[from] CircuitOpen),
    #[error("there is no time left for a call")]
    NoTimeLeft,
    #[error("the peer did not respond before the deadline")]
    TimedOut,
    #[error("the peer cannot be reached")]
    Transport(#[source] TransportError),
}

/// The address of a peer.
#[derive(Debug, Clone)]
pub struct Url(Endpoint);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|error| format!("it is not a URL: {error}"))?;
        // Without a scheme every call would fail. TLS is not supported yet.
        match endpoint.uri().scheme_str() {
            Some("http") => Ok(Self(endpoint)),
            _ => Err(format!("`{text}` does not begin with http://")),
        }
    }
}

/// A channel to `peer`, such as `product`. It connects when first used, and reconnects when needed.
pub fn connect(peer: &'static str, url: &Url) -> Peer {
    let endpoint = url
        .0
        .clone()
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        // A connection to a replica that hangs is replaced within four seconds.
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    Peer { channel: endpoint.connect_lazy(), breaker: Breaker::new(peer) }
}

impl Service<http::Request<Body>> for Peer {
    type Response = HttpResponse;
    type Error = PeerError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, PeerError>> + Send>>;

    /// Always ready: waiting for the channel is part of the call, and bounded by its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { channel, breaker } = self.clone();
        Box::pin(async move {
            let time_left = grpc_timeout(request.headers()).unwrap_or(Duration::MAX);
            if time_left < MIN_TIME_LEFT {
                return Err(PeerError::NoTimeLeft);
            }
            let attempt = breaker.begin(time_left)?;
            // tonic's own timer starts only when there is a connection.
            let Ok(response) = timeout(time_left, channel.oneshot(request)).await else {
                attempt.timed_out();
                return Err(PeerError::TimedOut);
            };
            match &response {
                Err(error) if is_our_timer(error) => attempt.timed_out(),
                Err(_) => attempt.failed(),
                Ok(response) => match code(response) {
                    Code::Unavailable => attempt.failed(),
                    // The peer enforces the deadline that we passed on.
                    Code::DeadlineExceeded => attempt.timed_out(),
                    _ => attempt.succeeded(),
                },
            }
            response.map_err(PeerError::Transport)
        })
    }
}

/// The code of an error is in the headers; a success has none there.
fn code(response: &HttpResponse) -> Code {
    Code::from_bytes(response.headers().get("grpc-status").map_or(b"0", |it| it.as_bytes()))
}

/// A request from the service `name`, with this deadline.
pub fn request<T>(name: &'static str, deadline: Instant, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SERVICE_HEADER, tonic::metadata::MetadataValue::from_static(name));
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    if let Some(value) = telemetry::traceparent().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    request
}

/// The pauses before the retries of a lost call: a short one, and one after which the channel surely knows that its connection
/// is closed.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Makes a call that only reads, and retries it if it is lost, as when a replica stops during the call. The edge cannot retry
/// it: it sees only our caller's call.
pub async fn read<T, F>(call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for pause in RETRY_AFTER {
        match call().await {
            Err(status) if is_lost(&status) => tokio::time::sleep(pause).await,
            outcome => return outcome.map(Response::into_inner),
        }
    }
    call().await.map(Response::into_inner)
}

/// Whether a call got no response, and another replica may respond.
fn is_lost(status: &Status) -> bool {
    let circuit_open = matches!(peer_error(status), Some(PeerError::CircuitOpen(_)));
    let is_unavailable = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (is_unavailable || is_local(status)) && !circuit_open && !is_out_of_time(status)
}

fn peer_error(status: &Status) -> Option<&PeerError> {
    status.source()?.downcast_ref()
}

/// Whether our client made this status, and not the peer: a status from a response has no source. The code does not tell: it is
/// INTERNAL for a connection that a stopping peer has closed with GOAWAY.
fn is_local(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether the deadline of a call passed before there was a response.
fn is_out_of_time(status: &Status) -> bool {
    match peer_error(status) {
        Some(PeerError::NoTimeLeft | PeerError::TimedOut) => true,
        Some(PeerError::Transport(error)) => is_our_timer(error),
        Some(PeerError::CircuitOpen(_)) | None => false,
    }
}

/// Whether tonic's client timed out, which has its own timer for the deadline.
fn is_our_timer(error: &TransportError) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Converts a failed call to a peer into the error for our own caller.
pub fn failed(peer: &'static str, status: Status) -> Error {
    let lost = |status| Unexpected::Peer { peer, source: Box::new(status) }.into();
    match status.code() {
        Code::DeadlineExceeded => Error::DeadlineExceeded,
        _ if is_out_of_time(&status) => Error::DeadlineExceeded,
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Unknown | Code::Cancelled => lost(status),
        _ if is_local(&status) => lost(status),
        _ => Unexpected::Broken(format!("{peer} refused our request: {status}")).into(),
    }
}

#[cfg(test)]
mod tests {
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

    async fn ask(peer: &Peer, patience: Duration) -> Result<HealthCheckResponse, Status> {
        let message = HealthCheckRequest { service: String::new() };
        let request = request("test", Instant::now() + patience, message);
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
        connect("test", &url.parse().expect("a URL"))
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
        connect("test", &url.parse().expect("a URL"))
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
        let peer = connect("test", &"http://127.0.0.1:1".parse().expect("a URL"));
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
}
