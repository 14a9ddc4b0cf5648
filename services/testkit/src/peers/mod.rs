//! The services that a service under test calls, each behind a port of its own, and the events of those whose topics it
//! consumes.

pub(crate) mod catalogue;
pub(crate) mod events;
pub(crate) mod orders;
pub(crate) mod users;
pub(crate) mod warehouse;

use std::convert::Infallible;

use chassis::rpc::client::{self, Peer};
use chassis::tls::{self, Origin, Party};
use http::{Request, Response};
use roster::Role;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::Service;

use crate::certificates;

/// A peer of `role` that cannot be reached.
pub fn unreachable(role: Role, peer: Role) -> Peer {
    let url = "https://127.0.0.1:1".parse().expect("a URL");
    client::connect(&certificates(), role, peer, &url).expect("the certificates are good")
}

/// Serves a peer, and connects `role` to it.
async fn serve<S>(role: Role, peer: Role, service: S) -> Peer
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
    let url = format!("https://{}", incoming.local_addr().expect("an address"));
    let incoming = tls::accept(incoming, certificates().of(peer.name).expect("its certificate is good"));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    client::connect(&certificates(), role, peer, &url.parse().expect("a URL")).expect("the certificates are good")
}

/// Fails the test unless the request comes from this role.
fn assert_from<T>(role: Role, request: &tonic::Request<T>) {
    let origin = request.extensions().get::<Origin>();
    assert_eq!(origin, Some(&Origin::Certificate(Party::new(role.name))), "a service uses its own certificate");
}
