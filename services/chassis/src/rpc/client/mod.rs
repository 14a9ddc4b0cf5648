//! Calls to other services, with the caller's deadline and trace, over all replicas of a service.

pub(crate) mod page;
mod peer;
mod replicas;
#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use roster::Role;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Code, Request, Response, Status, TimeoutExpired};

use crate::boot::telemetry;
use crate::rpc::error::{Error, Unexpected};
use crate::rpc::run_to_end::time_left;
use crate::tls::connect::Connector;
use crate::tls::{Certificates, Identity};
use peer::{RETRIES, Route};
use replicas::{Replicas, lookup};

pub use peer::{Peer, PeerError};

/// Where a peer is, such as `https://product:9003`, or `https://product-1:9003,product-2:9003`. All addresses of all hosts are its
/// replicas.
#[derive(Debug, Clone)]
pub struct Url {
    text: String,
    scheme: &'static str,
    hosts: Vec<Host>,
}

#[derive(Debug, Clone)]
struct Host {
    uri: Uri,
    name: String,
    port: u16,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a URL such as https://product:9003");
        let (scheme, hosts) = text.split_once("://").ok_or_else(refuse)?;
        let scheme = ["http", "https"].into_iter().find(|known| *known == scheme).ok_or_else(refuse)?;
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts).split(',');
        let hosts = hosts.map(|host| Host::parse(scheme, host).ok_or_else(refuse)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), scheme, hosts })
    }
}

impl Host {
    fn parse(scheme: &str, host_and_port: &str) -> Option<Self> {
        let uri: Uri = format!("{scheme}://{host_and_port}").parse().ok()?;
        let (name, port) = (uri.host()?.trim_matches(['[', ']']).to_owned(), uri.port_u16()?);
        let is_bare = uri.path() == "/" && uri.query().is_none() && !host_and_port.contains('@');
        (is_bare && !name.is_empty()).then_some(Self { uri, name, port })
    }
}

/// The service `peer`, for calls of `role`, which has its URL in a setting such as `ORDER_PRODUCT_URL`. It connects when first
/// used, and reconnects when needed.
pub fn connect(certificates: &Certificates, role: Role, peer: Role, url: &Url) -> Result<Peer, String> {
    connect_as(&role.variable(&format!("{}_url", peer.name)), certificates, role.name, peer, url)
}

/// The same, for a URL in another setting.
pub(crate) fn connect_as(
    setting: &str,
    certificates: &Certificates,
    role: &'static str,
    peer: Role,
    url: &Url,
) -> Result<Peer, String> {
    let refuse = |why: String| format!("{setting}: `{}` {why}", url.text);
    let identity = certificates.of(role)?;
    let scheme = if matches!(identity, Identity::Certificate(_)) { "https" } else { "http" };
    if url.scheme != scheme {
        return Err(refuse(format!("does not begin with {scheme}://, see SOUK_TLS_MODE")));
    }
    let connector = |host: &Host| -> Result<_, String> {
        let name = ServerName::try_from(host.name.clone()).map_err(|error| refuse(error.to_string()))?;
        Ok((host.clone(), Connector { peer: peer.name, host: name, identity: identity.clone() }))
    };
    let hosts = url.hosts.iter().map(connector).collect::<Result<_, _>>()?;
    Ok(Peer::new(Replicas::follow(peer.name, hosts, lookup())))
}

/// The pauses before the retries of a lost call: a short one, and one after which the channel surely knows that its connection
/// is closed.
const RETRY_AFTER: [Duration; RETRIES] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Makes a call that only reads. If it is lost, as when a replica stops or hangs during the call, another replica is called. The
/// edge cannot retry it: it sees only our caller's call.
pub async fn read<M, T, F>(deadline: Instant, message: M, call: impl Fn(Request<M>) -> F) -> Result<T, Status>
where
    M: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let route = Route::default();
    for (retries_before, pause) in RETRY_AFTER.into_iter().enumerate() {
        match call(request(deadline, message.clone(), route.with_retries(RETRIES - retries_before))).await {
            Err(status) if is_lost(&status) || (is_late(&status) && time_left(deadline).is_ok()) => {
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome.map(Response::into_inner),
        }
    }
    call(request(deadline, message, route.clone())).await.map(Response::into_inner)
}

/// A request of one attempt.
fn request<M>(deadline: Instant, message: M, route: Route) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request.extensions_mut().insert(route);
    if let Some(value) = telemetry::traceparent().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    request
}

/// Whether a call got no response, and another replica may respond.
fn is_lost(status: &Status) -> bool {
    let circuit_open = matches!(peer_error(status), Some(PeerError::CircuitOpen(_)));
    let is_unavailable = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (is_unavailable || is_local(status)) && !circuit_open && !is_out_of_time(status)
}

/// Whether a replica did not respond in time, which was only a part of the caller's if there are others.
fn is_late(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || is_out_of_time(status)
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
        Some(PeerError::CircuitOpen(_) | PeerError::Unresolved) | None => false,
    }
}

/// Whether tonic's client timed out, which has its own timer for the deadline.
fn is_our_timer(error: &tonic::transport::Error) -> bool {
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
