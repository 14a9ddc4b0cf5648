//! The services that a service under test calls, each behind a port of its own, and the events of those whose topics it
//! consumes.

pub(crate) mod catalogue;
pub(crate) mod events;
pub(crate) mod orders;

use std::convert::Infallible;

use chassis::rpc::client::{self, Peer};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::Service;

/// A peer that cannot be reached.
pub fn unreachable(peer: &'static str) -> Peer {
    client::connect(peer, &"http://127.0.0.1:1".parse().expect("a URL"))
}

/// Serves a peer, and connects to it.
async fn serve<S>(peer: &'static str, service: S) -> Peer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let url = format!("http://{}", incoming.local_addr().expect("an address"));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    client::connect(peer, &url.parse().expect("a URL"))
}
