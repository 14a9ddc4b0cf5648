//! Calls to other services. They carry the caller's deadline and trace, and our name; a peer that is away is left alone.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
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

/// Whether nobody answered a call that somebody else may: what only reads can be repeated then, once and at once.
pub fn got_lost(status: &Status) -> bool {
    let left_alone = matches!(status.source().and_then(|it| it.downcast_ref()), Some(NoAnswer::LeftAlone));
    matches!(status.code(), Code::Unavailable | Code::Unknown) && !left_alone
}

/// What a peer's failure means for our own caller. tonic's client says CANCELLED when its timer for the deadline rings.
pub fn failed(peer: &'static str, status: Status) -> Error {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => Error::DeadlineExceeded,
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Unknown => {
            Unexpected::Peer { peer, source: Box::new(status) }.into()
        }
        _ => Unexpected::Broken(format!("{peer} refused our request: {status}")).into(),
    }
}
