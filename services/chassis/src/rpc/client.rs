//! Calls to other services. They carry the caller's deadline and trace, and our name; a peer that is away is left alone.

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
use crate::rpc::breaker::{Breaker, LeftAlone};
use crate::rpc::error::{Error, Unexpected};
use crate::rpc::run_to_end::{WORTH_BEGINNING, grpc_timeout};

type Answer = http::Response<Body>;
type Failure = tonic::transport::Error;

/// Another service.
#[derive(Debug, Clone)]
pub struct Peer {
    channel: Channel,
    breaker: Arc<Breaker>,
}

#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    LeftAlone(#[from] LeftAlone),
    #[error("there is no time left to ask it")]
    TooLate,
    #[error("it did not answer before the deadline")]
    TimedOut,
    #[error("it cannot be reached")]
    Transport(#[source] Failure),
}

/// Where a peer is.
#[derive(Debug, Clone)]
pub struct Url(Endpoint);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|error| format!("it is not a URL: {error}"))?;
        // Without a scheme every call would fail, and so it would with TLS, which is not set up.
        match endpoint.uri().scheme_str() {
            Some("http") => Ok(Self(endpoint)),
            _ => Err(format!("`{text}` does not begin with http://")),
        }
    }
}

/// A channel to `peer`, such as `product`, that connects when first used and again whenever it must.
pub fn connect(peer: &'static str, url: &Url) -> Peer {
    let endpoint = url
        .0
        .clone()
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        // One that stands still without closing anything is left for another one soon.
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    Peer { channel: endpoint.connect_lazy(), breaker: Breaker::new(peer) }
}

impl Service<http::Request<Body>> for Peer {
    type Response = Answer;
    type Error = NoAnswer;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, NoAnswer>> + Send>>;

    /// Waiting for the channel is part of the call, and bounded by its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAnswer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { channel, breaker } = self.clone();
        Box::pin(async move {
            let patience = grpc_timeout(request.headers()).unwrap_or(Duration::MAX);
            if patience < WORTH_BEGINNING {
                return Err(NoAnswer::TooLate);
            }
            let attempt = breaker.begin(patience)?;
            // tonic's own timer begins only when there is a connection.
            let Ok(answer) = timeout(patience, channel.oneshot(request)).await else {
                attempt.timed_out();
                return Err(NoAnswer::TimedOut);
            };
            match &answer {
                Err(error) if is_our_timer(error) => attempt.timed_out(),
                Err(_) => attempt.failed(),
                Ok(answer) => match code(answer) {
                    Code::Unavailable => attempt.failed(),
                    // It ends calls by the deadline that we handed on.
                    Code::DeadlineExceeded => attempt.timed_out(),
                    _ => attempt.succeeded(),
                },
            }
            answer.map_err(NoAnswer::Transport)
        })
    }
}

/// An error stands in the headers; an answer that has none there is one.
fn code(answer: &Answer) -> Code {
    Code::from_bytes(answer.headers().get("grpc-status").map_or(b"0", |it| it.as_bytes()))
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
    let left_alone = matches!(no_answer(status), Some(NoAnswer::LeftAlone(_)));
    let is_away = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (is_away || is_ours(status)) && !left_alone && !is_out_of_time(status)
}

fn no_answer(status: &Status) -> Option<&NoAnswer> {
    status.source()?.downcast_ref()
}

/// Whether no peer answered this as its status: what was read of an answer has no source, and what tonic's client tells of a
/// connection has. Its code says little, as it is INTERNAL of one that a peer that leaves has closed with GOAWAY.
fn is_ours(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether the deadline of a call passed before it was answered.
fn is_out_of_time(status: &Status) -> bool {
    match no_answer(status) {
        Some(NoAnswer::TooLate | NoAnswer::TimedOut) => true,
        Some(NoAnswer::Transport(error)) => is_our_timer(error),
        Some(NoAnswer::LeftAlone(_)) | None => false,
    }
}

/// tonic's client has a timer of its own for the deadline.
fn is_our_timer(error: &Failure) -> bool {
    let mut source = error.source();
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
        _ if is_out_of_time(&status) => Error::DeadlineExceeded,
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

    /// A peer that takes connections, and what it does with each.
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

    /// A peer that ends each call as if by the deadline that it was given.
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

    fn is_left_alone(status: &Status) -> bool {
        matches!(no_answer(status), Some(NoAnswer::LeftAlone(_)))
    }

    #[tokio::test]
    async fn short_deadlines_do_not_make_a_peer_one_that_fails() {
        for peer in [silent().await, late().await] {
            for _ in 0..30 {
                let status = ask(&peer, Duration::from_millis(10)).await.expect_err("it is not answered");
                assert!(!is_left_alone(&status), "{status:?}");
                assert!(matches!(failed("test", status), Error::DeadlineExceeded));
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_hangs_is_found_out_by_those_who_gave_it_a_fair_time() {
        let peer = silent().await;
        let calls: JoinSet<_> = (0..10)
            .map(|_| {
                let peer = peer.clone();
                async move { ask(&peer, FAIR_TIME * 2).await }
            })
            .collect();
        for outcome in calls.join_all().await {
            assert!(matches!(failed("test", outcome.expect_err("nobody answers")), Error::DeadlineExceeded));
        }
        let status = ask(&peer, FAIR_TIME * 2).await.expect_err("nobody answers");
        assert!(is_left_alone(&status) && !got_lost(&status), "{status:?}");
        assert!(matches!(failed("test", status), Error::Unexpected(Unexpected::Peer { .. })));
    }

    #[tokio::test]
    async fn a_call_without_time_is_not_made() {
        // Nobody listens there.
        let peer = connect("test", &"http://127.0.0.1:1".parse().expect("a URL"));
        let status = ask(&peer, Duration::ZERO).await.expect_err("it is not made");
        assert!(matches!(no_answer(&status), Some(NoAnswer::TooLate)), "{status:?}");
        assert!(matches!(failed("test", status), Error::DeadlineExceeded));
    }

    #[tokio::test]
    async fn a_peer_that_is_silent_until_the_deadline_is_one() {
        let status = ask(&silent().await, Duration::from_millis(50)).await.expect_err("nobody answers");
        assert!(!got_lost(&status), "{status:?}");
        assert!(matches!(failed("test", status), Error::DeadlineExceeded));
    }
}
