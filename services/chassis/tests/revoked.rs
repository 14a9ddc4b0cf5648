//! A role polls the keys and the revoked sessions, and keeps the last ones while it cannot.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::Error;
use chassis::rpc::client::connect;
use chassis::rpc::token::{KEYS_PATH, REVOKED_PATH, Revoked, Verifier};
use chassis::tls::{Certificates, Mode, Tls};
use testkit::Kit;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

/// A user service.
#[derive(Clone, Default)]
struct User {
    /// Without one, it fails.
    revoked: Arc<Mutex<Option<Vec<Uuid>>>>,
    asked: Arc<AtomicUsize>,
}

async fn revoked(State(user): State<User>, headers: HeaderMap) -> Response {
    user.asked.fetch_add(1, Ordering::SeqCst);
    let Some(session_ids) = user.revoked.lock().expect("no panics").clone() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let etag = format!("\"{}\"", session_ids.len());
    if headers.get("if-none-match").is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", etag)], axum::Json(Revoked { session_ids })).into_response()
}

/// Its address.
fn serve(user: &User, kit: &Kit) -> SocketAddr {
    let keys = kit.keys();
    let pages = Router::new().route(REVOKED_PATH, get(revoked)).with_state(user.clone());
    let pages = pages.route(KEYS_PATH, get(async move || axum::Json(keys)));
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = incoming.local_addr().expect("an address");
    tokio::spawn(Server::builder().add_routes(Routes::from(pages)).serve_with_incoming(incoming));
    address
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_replica_that_starts_accepts_no_token_before_it_knows_what_was_revoked() {
    let (kit, user) = (Kit::new(), User::default());
    let address = serve(&user, &kit);
    let verifier = Arc::new(Verifier::new(&kit.context.verifier.issuer, &kit.context.verifier.audience));
    // One of its replicas is gone.
    let url = format!("http://127.0.0.1:1,{address}").parse().expect("a URL");
    let mesh = Certificates::new(&Tls {
        mode: Mode::Mesh,
        mesh_prefix: Some("spiffe://souk/".parse().expect("a prefix")),
        directory: ".".into(),
        callers: vec![],
    });
    let peer = connect(&mesh, roster::ORDER, roster::USER, &url).expect("no certificate is needed");
    let stop = CancellationToken::new();
    let polling = tokio::spawn(verifier.clone().poll(peer, stop.clone()));
    let [ended, valid] = [Uuid::from_u128(1), Uuid::from_u128(2)].map(|session| kit.token(Uuid::from_u128(7), session));

    until("a failed poll is repeated", || user.asked.load(Ordering::SeqCst) >= 2).await;
    for token in [&ended, &valid] {
        let refused = verifier.verify(token).expect_err("the list is not known");
        assert!(matches!(refused, Error::KeysUnavailable), "{refused:?}");
    }
    *user.revoked.lock().expect("no panics") = Some(vec![Uuid::from_u128(1)]);
    verifier.ready().await;
    assert!(matches!(verifier.verify(&ended), Err(Error::TokenRevoked)));
    assert!(verifier.verify(&valid).is_ok());
    stop.cancel();
    polling.await.expect("it stops");
}
