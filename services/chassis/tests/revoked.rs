//! A role polls the keys and the revoked sessions, and keeps the last ones while it cannot.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::Error;
use chassis::rpc::token::{Revoked, Verifier};
use testkit::Kit;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The admin port of a user service.
#[derive(Clone, Default)]
struct Admin {
    /// Without one, it fails.
    revoked: Arc<Mutex<Option<Vec<Uuid>>>>,
    asked: Arc<AtomicUsize>,
}

async fn revoked(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    admin.asked.fetch_add(1, Ordering::SeqCst);
    let Some(session_ids) = admin.revoked.lock().expect("no panics").clone() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let etag = format!("\"{}\"", session_ids.len());
    if headers.get("if-none-match").is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", etag)], axum::Json(Revoked { session_ids })).into_response()
}

/// Its URL.
async fn serve(admin: &Admin, kit: &Kit) -> String {
    let keys = kit.keys();
    let pages = Router::new().route("/revoked", get(revoked)).with_state(admin.clone());
    let pages = pages.route("/keys", get(async move || axum::Json(keys)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, pages).await });
    format!("http://{address}")
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
    let (kit, admin) = (Kit::new(), Admin::default());
    let url = serve(&admin, &kit).await;
    let verifier = Arc::new(Verifier::new(&kit.context.verifier.issuer, &kit.context.verifier.audience));
    let (gone, revoked) = ("http://127.0.0.1:1/revoked".to_owned(), format!("{url}/revoked"));
    let stop = CancellationToken::new();
    let polling = tokio::spawn(verifier.clone().poll(format!("{url}/keys"), vec![gone, revoked], stop.clone()));
    let [ended, valid] = [Uuid::from_u128(1), Uuid::from_u128(2)].map(|session| kit.token(Uuid::from_u128(7), session));

    until("a failed poll is repeated", || admin.asked.load(Ordering::SeqCst) >= 2).await;
    for token in [&ended, &valid] {
        let refused = verifier.verify(token).expect_err("the list is not known");
        assert!(matches!(refused, Error::KeysUnavailable), "{refused:?}");
    }
    *admin.revoked.lock().expect("no panics") = Some(vec![Uuid::from_u128(1)]);
    verifier.ready().await;
    assert!(matches!(verifier.verify(&ended), Err(Error::TokenRevoked)));
    assert!(verifier.verify(&valid).is_ok());
    stop.cancel();
    polling.await.expect("it stops");
}
