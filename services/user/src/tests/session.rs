use axum::body::Body;
use axum::http::Request as HttpRequest;
use chassis::token::Verifier;
use http_body_util::BodyExt;
use jsonwebtoken::jwk::JwkSet;
use sqlx::PgPool;
use testkit::reason;
use tonic::Code;
use tower::ServiceExt;

use super::{Desk, PASSWORD, key_file, login};
use crate::signing::{Signer, pages};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_unknown_and_the_wrong_get_the_same_answer(db: PgPool) {
    let desk = Desk::open(db).await;
    desk.register("k1", "ada@example.com").await.expect("registered");
    let wrong = desk.sessions().create_session(login("ada@example.com", "not my password")).await.expect_err("wrong");
    let unknown = desk.sessions().create_session(login("eve@example.com", PASSWORD)).await.expect_err("unknown");
    assert_eq!((wrong.code(), reason(&wrong)), (Code::Unauthenticated, "CREDENTIALS_INVALID@souk.user".into()));
    assert_eq!(
        (wrong.code(), wrong.message(), wrong.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_session_has_tokens_and_keeps_only_the_hash_of_one(db: PgPool) {
    let desk = Desk::open(db).await;
    desk.register("k1", "ada@example.com").await.expect("registered");
    let session = desk.sessions().create_session(login("ADA@example.com", PASSWORD)).await.expect("signed in");
    let session = session.into_inner();
    assert_eq!(session.access_token.split('.').count(), 3);
    let stored = sqlx::query_scalar!("select refresh_hash from session").fetch_one(&desk.db).await.expect("one row");
    assert_eq!(stored.len(), 32);
    assert_ne!(stored, session.refresh_token.as_bytes());
}

#[tokio::test]
async fn the_published_keys_verify_what_was_signed_and_nothing_else() {
    let signer = Signer::read(&[key_file(), key_file()], "https://souk.test", "souk").expect("good keys");
    let response =
        pages(&signer).oneshot(HttpRequest::get("/.well-known/jwks.json").body(Body::empty()).expect("a request"));
    let response = response.await.expect("a page");
    let etag = response.headers()["etag"].clone();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let keys: JwkSet = serde_json::from_slice(&body).expect("a key set");
    assert_eq!(keys.keys.len(), 2);
    assert!(!String::from_utf8_lossy(&body).contains("\"d\""), "no private key");

    let (user, session) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let sign =
        |signer: &Signer, at| signer.sign(user, session, chassis::token::RoleClaim::Customer, at).expect("signed").0;
    let now = time::OffsetDateTime::now_utc();
    let verifier = |issuer: &str| {
        let verifier = Verifier::new(issuer, "souk");
        verifier.set_keys(&keys);
        verifier
    };
    let good = sign(&signer, now);
    assert!(verifier("https://souk.test").verify(&good).is_ok());
    assert!(verifier("https://elsewhere.test").verify(&good).is_err(), "another issuer");
    assert!(verifier("https://souk.test").verify(&sign(&signer, now - time::Duration::hours(1))).is_err(), "expired");
    let stranger = Signer::read(&[key_file()], "https://souk.test", "souk").expect("a good key");
    assert!(verifier("https://souk.test").verify(&sign(&stranger, now)).is_err(), "another key");

    let known = HttpRequest::get("/.well-known/jwks.json").header("if-none-match", etag).body(Body::empty());
    let response = pages(&signer).oneshot(known.expect("a request")).await.expect("a page");
    assert_eq!(response.status(), 304);
}

#[test]
fn a_bad_key_file_is_named_and_not_shown() {
    let path = std::env::temp_dir().join(format!("souk-bad-{}.pem", uuid::Uuid::now_v7()));
    std::fs::write(&path, "not a key").expect("written");
    let error = Signer::read(std::slice::from_ref(&path), "i", "a").err().expect("refused").to_string();
    assert!(error.contains("souk-bad-") && !error.contains("not a key"), "{error}");
    assert!(Signer::read(&[], "i", "a").is_err(), "none is none");
}
