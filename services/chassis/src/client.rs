//! Calls to other services. They carry the caller's deadline and trace, and our name; a peer that is away is left alone.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, TimeoutExpired};
use tower::ServiceExt;
use tower::util::MapErr;

use crate::admit::SERVICE_HEADER;
use crate::breaker::{self, CircuitBreakerError, Guarded};
use crate::error::{Error, Unexpected};
use crate::telemetry;

type Answer = http::Response<Body>;
type Failure = tonic::transport::Error;

/// Another service.
pub type Peer = MapErr<Guarded<Channel, Answer, Failure>, fn(CircuitBreakerError<Failure>) -> NoAnswer>;

#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("it fails each time, and is left alone")]
    LeftAlone,
    #[error("it cannot be reached")]
    Transport(#[source] Failure),
}

/// A channel to `peer`, such as `product`, that connects when first used and again whenever it must.
pub fn connect(peer: &'static str, url: &str) -> Result<Peer, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("it is not a URL: {error}"))?;
    // Without a scheme every call would fail, and so it would with TLS, which is not set up.
    endpoint.uri().scheme_str().filter(|it| *it == "http").ok_or(format!("`{url}` does not begin with http://"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        // One that stands still without closing anything is left for another one soon.
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    Ok(breaker::guard(peer, endpoint.connect_lazy(), is_away as _).map_err(explain as _))
}

/// Whether the peer did not answer, or only that it cannot.
fn is_away(answer: &Result<Answer, Failure>) -> bool {
    let code = |answer: &Answer| Code::from_bytes(answer.headers().get("grpc-status").map_or(b"0", |it| it.as_bytes()));
    answer.as_ref().map_or(true, |answer| matches!(code(answer), Code::Unavailable | Code::DeadlineExceeded))
}

fn explain(error: CircuitBreakerError<Failure>) -> NoAnswer {
    match error {
        CircuitBreakerError::OpenCircuit => NoAnswer::LeftAlone,
        CircuitBreakerError::Inner(error) => NoAnswer::Transport(error),
    }
}

/// A request from the service `name`, worth answering until `deadline`.
pub fn request<T>(name: &'static str, deadline: Instant, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SERVICE_HEADER, tonic::metadata::MetadataValue::from_static(name));
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    if let Some(value) = telemetry::traceparent().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    request
}

/// When a call that got lost is made again: soon, and once more when the channel surely knows that its connection is closed.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Asks for what only reads, and asks again if the call got lost, as it does when a replica dies or leaves in the middle of
/// it. The edge cannot do that: it knows only of our own caller.
pub async fn read<T, F>(ask: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for pause in AGAIN_AFTER {
        match ask().await {
            Err(status) if got_lost(&status) => tokio::time::sleep(pause).await,
            answer => return answer.map(Response::into_inner),
        }
    }
    ask().await.map(Response::into_inner)
}

/// Whether nobody answered a call that somebody else may.
fn got_lost(status: &Status) -> bool {
    let left_alone = matches!(status.source().and_then(|it| it.downcast_ref()), Some(NoAnswer::LeftAlone));
    let is_away = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (is_away || is_ours(status)) && !left_alone && !is_our_timer(status)
}

/// Whether no peer answered this as its status: what was read of an answer has no source, and what tonic's client tells of a
/// connection has. Its code says little, as it is INTERNAL of one that a peer that leaves has closed with GOAWAY.
fn is_ours(status: &Status) -> bool {
    status.source().is_some()
}

/// tonic's client says CANCELLED when its timer for the deadline rings, and also when the connection closes under a call.
fn is_our_timer(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// What a peer's failure means for our own caller.
pub fn failed(peer: &'static str, status: Status) -> Error {
    let lost = |status| Unexpected::Peer { peer, source: Box::new(status) }.into();
    match status.code() {
        Code::DeadlineExceeded => Error::DeadlineExceeded,
        Code::Cancelled if is_our_timer(&status) => Error::DeadlineExceeded,
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Unknown | Code::Cancelled => lost(status),
        _ if is_ours(&status) => lost(status),
        _ => Unexpected::Broken(format!("{peer} refused our request: {status}")).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

    use super::*;

    async fn ask(peer: &Peer, patience: Duration) -> Result<HealthCheckResponse, Status> {
        let message = HealthCheckRequest { service: String::new() };
        let request = request("test", Instant::now() + patience, message);
        HealthClient::new(peer.clone()).check(request).await.map(Response::into_inner)
    }

    /// A peer that takes connections, and what it does with each.
    async fn peer<F: Future<Output = Infallible> + Send + 'static>(then: fn(TcpStream) -> F) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(then(stream));
            }
        });
        connect("test", &url).expect("a URL")
    }

    #[tokio::test]
    async fn a_connection_that_closes_under_a_call_is_no_deadline() {
        // Gone at once, so that some calls find it closing before they are sent; and gone with the request.
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
                let status = ask(&peer, Duration::from_secs(5)).await.expect_err("nobody answers");
                assert!(got_lost(&status), "{status:?}");
                codes.push(status.code());
                assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
            }
        }
        assert!(codes.contains(&Code::Cancelled), "{codes:?}");
    }

    /// As a peer does that leaves: GOAWAY, with the request above what it still answers.
    async fn turn_away(stream: &mut TcpStream) -> std::io::Result<()> {
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
    async fn a_call_that_is_turned_away_by_a_peer_that_leaves_got_lost() {
        let peer = peer(|mut stream| async move {
            turn_away(&mut stream).await.expect("a client of HTTP/2");
            std::future::pending().await
        });
        let status = ask(&peer.await, Duration::from_secs(5)).await.expect_err("nobody answers");
        assert_eq!(status.code(), Code::Internal, "which is what tonic makes of it");
        assert!(got_lost(&status), "{status:?}");
        assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
    }

    #[tokio::test]
    async fn a_peer_that_is_silent_until_the_deadline_is_one() {
        let peer = peer(|stream| async move {
            let _open = stream;
            std::future::pending().await
        });
        let status = ask(&peer.await, Duration::from_millis(50)).await.expect_err("nobody answers");
        assert!(!got_lost(&status), "{status:?}");
        assert!(matches!(failed("test", status), Error::DeadlineExceeded));
    }
}
