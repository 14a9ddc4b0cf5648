use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chassis::Clock;
use chassis::rpc::token::{Revoked, Verifier};
use http_body_util::BodyExt;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use tower::ServiceExt;
use uuid::Uuid;

use super::Desk;
use super::register::PASSWORD;
use super::session::login;
use crate::account::{Role, UserId};
use crate::session::SessionId;
use crate::signing::{LIFETIME, Signer, pages};

async fn fetch(pages: &Router, known: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::get("/.well-known/jwks.json").header(header::IF_NONE_MATCH, known).body(Body::empty());
    let response = pages.clone().oneshot(request.expect("a request")).await.expect("a page");
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.expect("a body").to_bytes().to_vec())
}

async fn verifier(pages: &Router, issuer: &str, audience: &str) -> Verifier {
    let keys: JwkSet = serde_json::from_slice(&fetch(pages, "").await.2).expect("a key set");
    let verifier = Verifier::new(issuer, audience);
    verifier.set_keys(&keys);
    verifier.set_revoked(Revoked::default());
    verifier
}

pub(super) fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// A file that is gone when the test is over.
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("souk-{name}-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, content).expect("the folder for temporary files can be written");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A fresh key, as an administrator would have put it there.
pub(super) fn key_file() -> File {
    key_file_of(&ECDSA_P256_SHA256_FIXED_SIGNING)
}

pub(super) fn key_file_of(curve: &'static EcdsaSigningAlgorithm) -> File {
    let key = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new());
    let body = STANDARD.encode(key.expect("a key can be made").as_ref());
    File::new("key", &format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
}

pub(super) fn signer(files: &[&File]) -> Signer {
    let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
    Signer::read(&paths, "https://souk.test", "souk").expect("the keys are good")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_published_keys_verify_the_token_of_a_session(db: PgPool) {
    let desk = Desk::open_with(db, Some(Clock::System), 2).await;
    let ada = desk.register("k1", "ada@example.com").await.expect("registered");
    let session = desk.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect("signed in");
    let session = session.into_inner();
    let token = &session.access_token;
    assert!(verifier(&pages(&desk.service.signer), "https://souk.test", "souk").await.verify(token).is_ok());

    let (head, claims) = (part(token, 0), part(token, 1));
    assert_eq!((&head["typ"], &head["alg"]), (&"at+jwt".into(), &"ES256".into()));
    let mut names: Vec<_> = claims.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "role", "sid", "sub"], "nothing about the person");
    assert_eq!((claims["sub"].as_str(), claims["role"].as_str()), (Some(ada.user_id.as_str()), Some("customer")));
    assert_eq!(claims["sid"].as_str(), session.session.as_ref().map(|session| session.session_id.as_str()));
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(300));
    assert_eq!(session.expire_time.map(|time| time.seconds), claims["exp"].as_i64());
}

#[tokio::test]
async fn no_other_token_passes() {
    let file = key_file();
    let ours = signer(&[&file]);
    let pages = pages(&ours);
    let (user, session) = (UserId::new(Uuid::now_v7()), SessionId::new(Uuid::now_v7()));
    let now = OffsetDateTime::now_utc();
    let sign = |signer: &Signer, at| signer.sign(user, session, Role::Customer, at, at + LIFETIME).expect("signed");
    let good = sign(&ours, now);

    let here = verifier(&pages, "https://souk.test", "souk").await;
    assert!(here.verify(&good).is_ok());
    assert!(here.verify(&sign(&ours, now - Duration::hours(1))).is_err(), "expired");
    assert!(here.verify(&sign(&signer(&[&key_file()]), now)).is_err(), "another key");
    assert!(verifier(&pages, "https://elsewhere.test", "souk").await.verify(&good).is_err(), "another issuer");
    assert!(verifier(&pages, "https://souk.test", "other").await.verify(&good).is_err(), "another audience");

    let key = EncodingKey::from_ec_pem(&std::fs::read(file.path()).expect("there")).expect("a key");
    let mut head = Header::new(Algorithm::ES256);
    head.kid = part(&good, 0)["kid"].as_str().map(str::to_owned);
    let plain = jsonwebtoken::encode(&head, &part(&good, 1), &key).expect("signed");
    assert!(here.verify(&plain).is_err(), "a JWT that is no access token");
}

#[tokio::test]
async fn all_keys_are_published_and_none_of_their_secrets() {
    let (first, second) = (key_file(), key_file());
    let signer = signer(&[&first, &second]);
    let pages = pages(&signer);
    let (status, headers, body) = fetch(&pages, "").await;
    assert_eq!((status, &headers[header::CONTENT_TYPE]), (StatusCode::OK, &"application/json".parse().expect("text")));
    assert!(headers.contains_key(header::CACHE_CONTROL));
    let set: Value = serde_json::from_slice(&body).expect("JSON");
    let keys = set["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 2);
    for key in keys {
        let mut names: Vec<_> = key.as_object().expect("an object").keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"], "no private part");
        // RFC 7638: the required members, in the order of their names, without white space.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, key["x"], key["y"]);
        assert_eq!(key["kid"].as_str(), Some(URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)).as_str()));
    }
    let now = OffsetDateTime::now_utc();
    let signed = signer.sign(UserId::default(), SessionId::default(), Role::Operator, now, now + LIFETIME);
    assert_eq!(part(&signed.expect("signed"), 0)["kid"], keys[0]["kid"], "the first signs");

    let etag = headers[header::ETAG].to_str().expect("text");
    let (status, _, body) = fetch(&pages, etag).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[test]
fn a_key_file_that_cannot_sign_is_named_and_not_shown() {
    let refuse = |paths: &[std::path::PathBuf]| Signer::read(paths, "i", "a").err().expect("refused").to_string();
    let nonsense = File::new("bad", "not a key");
    let error = refuse(&[nonsense.path().to_owned()]);
    assert!(error.contains("souk-bad-") && !error.contains("not a key"), "{error}");
    let other = key_file_of(&ECDSA_P384_SHA384_FIXED_SIGNING);
    assert!(refuse(&[other.path().to_owned()]).contains("P-256"), "another curve");
    let gone = key_file().path().to_owned();
    assert!(refuse(std::slice::from_ref(&gone)).contains(&gone.display().to_string()), "a missing file");
    assert!(refuse(&[]).contains("required"), "none");
    assert!(refuse(&["".into()]).contains("required"), "an empty variable is none");
}
