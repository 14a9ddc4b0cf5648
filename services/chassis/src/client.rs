//! Calls to other services. They carry the caller's deadline and trace, and our name.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::admit::SERVICE_HEADER;
use crate::error::{Error, Unexpected};
use crate::telemetry;

/// A channel that connects when first used and again whenever it must.
pub fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("it is not a URL: {error}"))?;
    // Without a scheme every call would fail, and so it would with TLS, which is not set up.
    endpoint.uri().scheme_str().filter(|it| *it == "http").ok_or(format!("`{url}` does not begin with http://"))?;
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5));
    Ok(endpoint.connect_lazy())
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
