use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chassis::Clock;
use chassis::Wake;
use chassis::rpc::token::{Revoked, Verifier};
use http_body_util::BodyExt;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use time::OffsetDateTime;
use tower::ServiceExt;
use uuid::Uuid;

use super::register::PASSWORD;
use super::session::login;
use super::{Fixture, LIMITS};
use crate::account::{Role, UserId};
use crate::password::Passwords;
use crate::password_log::PasswordLog;
use crate::service::Service;
use crate::session::SessionId;
use crate::signing::{LIFETIME, READ_EVERY, RETIRED, Signer, page, refresh};

/// How long a key is published before it signs.
const LEAD: Duration = Duration::from_secs(600);

async fn fetch(service: &Arc<Service>, known: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::get("/.well-known/jwks.json").header(header::IF_NONE_MATCH, known).body(Body::empty());
    let response = page(service).oneshot(request.expect("a request")).await.expect("a page");
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.expect("a body").to_bytes().to_vec())
}

async fn published(service: &Arc<Service>) -> JwkSet {
    serde_json::from_slice(&fetch(service, "").await.2).expect("a key set")
}

fn verifier(keys: &JwkSet, issuer: &str, audience: &str) -> Verifier {
    let verifier = Verifier::new(issuer, audience);
    verifier.set_keys(keys);
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

/// A folder of keys, as an administrator would have made it; gone when the test is over.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(keys: usize) -> Self {
        let path = std::env::temp_dir().join(format!("souk-keys-{}", Uuid::now_v7()));
        std::fs::create_dir(&path).expect("the folder for temporary files can be written");
        let folder = Self(path);
        for number in 0..keys {
            folder.add(&format!("{number}.pem"));
        }
        folder
    }

    fn add(&self, name: &str) {
        self.add_of(name, &ECDSA_P256_SHA256_FIXED_SIGNING);
    }

    fn add_of(&self, name: &str, curve: &'static EcdsaSigningAlgorithm) {
        let key = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new());
        let body = STANDARD.encode(key.expect("a key can be made").as_ref());
        self.write(name, &format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"));
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).expect("it can be written");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).expect("it is there");
    }

    pub(super) fn signer(&self) -> Signer {
        Signer::read(&self.0, LEAD, "https://souk.test", "souk").expect("the keys are good")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Fixture {
    /// Another replica, which has just started and serves nothing.
    async fn replica(&self, keys: &Folder) -> Arc<Service> {
        Arc::new(Service {
            db: self.service.db.clone(),
            clock: self.service.clock.clone(),
            passwords: Passwords::new(1),
            signer: keys.signer(),
            links: super::links(),
            throttle: super::throttle().await,
            password_log: PasswordLog::new(),
            published: Wake::default(),
            reset_requested: Wake::default(),
            sessions: LIMITS,
        })
    }
}

/// Of a token that this replica signs.
async fn sign(service: &Service) -> String {
    let (now, subject) = (OffsetDateTime::now_utc(), (UserId::default(), SessionId::default(), Role::Customer));
    // Verifiers have the system's clock.
    service.signer.sign(&service.db, subject, now, now + LIFETIME).await.expect("signed")
}

fn key_of(token: &str) -> String {
    part(token, 0)["kid"].as_str().expect("a key id").to_owned()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_published_keys_verify_the_token_of_a_session(db: PgPool) {
    let fixture = Fixture::open_with(db, Some(Clock::System), Passwords::new(2)).await;
    let ada = fixture.register("k1", "ada@example.com").await.expect("registered");
    let session = fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect("signed in");
    let session = session.into_inner();
    let token = &session.access_token;
    assert!(verifier(&published(&fixture.service).await, "https://souk.test", "souk").verify(token).is_ok());

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

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_other_token_passes(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (ours, good) = (&fixture.service, sign(&fixture.service).await);
    let keys = published(ours).await;
    let here = verifier(&keys, "https://souk.test", "souk");
    assert!(here.verify(&good).is_ok());
    let (then, subject) =
        (OffsetDateTime::now_utc() - LIFETIME * 2, (UserId::default(), SessionId::default(), Role::Customer));
    let expired = ours.signer.sign(&ours.db, subject, then, then + LIFETIME).await.expect("signed");
    assert!(here.verify(&expired).is_err(), "expired");
    let strange = Folder::new(1);
    let stranger = Signer::read(&strange.0, LEAD, "https://souk.test", "souk").expect("a key");
    let (now, elsewhere) = (OffsetDateTime::now_utc(), fixture.replica(&strange).await);
    let forged = stranger.sign(&elsewhere.db, subject, now, now + LIFETIME).await.expect("signed");
    assert!(here.verify(&forged).is_err(), "another key");
    assert!(verifier(&keys, "https://elsewhere.test", "souk").verify(&good).is_err(), "another issuer");
    assert!(verifier(&keys, "https://souk.test", "other").verify(&good).is_err(), "another audience");

    let pem = std::fs::read(fixture.keys.0.join("0.pem")).expect("there");
    let mut head = Header::new(Algorithm::ES256);
    head.kid = part(&good, 0)["kid"].as_str().map(str::to_owned);
    let key = EncodingKey::from_ec_pem(&pem).expect("a key");
    let plain = jsonwebtoken::encode(&head, &part(&good, 1), &key).expect("signed");
    assert!(here.verify(&plain).is_err(), "a JWT that is no access token");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_keys_are_published_and_none_of_their_secrets(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.keys.add("1.pem");
    refresh(fixture.service.clone()).await.expect("read");
    let (status, headers, body) = fetch(&fixture.service, "").await;
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
    let etag = headers[header::ETAG].to_str().expect("text");
    let (status, _, body) = fetch(&fixture.service, etag).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
}

/// At each step, tokens are verified with the keys that were published a minute before: so late may the edge be.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_is_replaced_without_a_restart_and_without_a_refused_token(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let minute = Duration::from_secs(60);
    let here = fixture.service.clone();
    // Each has the same files, in a folder of its own, as on another machine.
    let theirs = Folder::new(0);
    std::fs::copy(fixture.keys.0.join("0.pem"), theirs.0.join("0.pem")).expect("copied");
    let there = fixture.replica(&theirs).await;
    let (mut tokens, mut signed_by) = (Vec::<(OffsetDateTime, String)>::new(), Vec::<String>::new());
    for passed in 0..40 {
        match passed {
            3 => {
                fixture.keys.add("1.pem");
            }
            // The other machine gets the file later.
            5 => {
                std::fs::copy(fixture.keys.0.join("1.pem"), theirs.0.join("1.pem")).expect("copied");
            }
            20 => {
                fixture.keys.remove("0.pem");
                theirs.remove("0.pem");
            }
            _ => {}
        }
        let known = [published(&here).await, published(&there).await];
        fixture.wait(minute);
        for service in [&here, &there] {
            refresh(service.clone()).await.expect("read");
            let token = sign(service).await;
            signed_by.push(key_of(&token));
            tokens.push((fixture.service.clock.now(), token));
        }
        let now = fixture.service.clock.now();
        tokens.retain(|(signed_at, _)| *signed_at + LIFETIME > now);
        for keys in &known {
            let verifier = verifier(keys, "https://souk.test", "souk");
            for (signed_at, token) in &tokens {
                assert!(verifier.verify(token).is_ok(), "minute {passed}: a token of {signed_at}");
            }
        }
    }
    let (old, new) = (signed_by[0].clone(), signed_by[signed_by.len() - 1].clone());
    assert_ne!(old, new);
    let changed_at = signed_by.iter().position(|key| *key == new).expect("it signs") / 2;
    assert!((12..=14).contains(&changed_at), "ten minutes after it was there: {changed_at}");
    assert!(signed_by.iter().skip(2 * changed_at + 2).all(|key| *key == new), "all replicas sign with one key");
    for service in [&here, &there] {
        let keys = published(service).await;
        assert_eq!(keys.keys.len(), 1, "the old one is not published any more");
    }
}

/// Also by a replica that never had its file.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_is_published_until_its_last_token_has_expired(db: PgPool) {
    let fixture = Fixture::open(db).await;
    refresh(fixture.service.clone()).await.expect("read");
    let token = sign(&fixture.service).await;
    let new = Folder::new(1);
    let replica = fixture.replica(&new).await;
    refresh(replica.clone()).await.expect("read");
    assert!(verifier(&published(&replica).await, "https://souk.test", "souk").verify(&token).is_ok());
    assert_ne!(key_of(&sign(&replica).await), key_of(&token), "it has no other key");
    fixture.wait(RETIRED - READ_EVERY);
    refresh(replica.clone()).await.expect("read");
    assert_eq!(published(&replica).await.keys.len(), 2);
    fixture.wait(READ_EVERY);
    refresh(replica.clone()).await.expect("read");
    assert_eq!(published(&replica).await.keys.len(), 1);
}

/// As while it is being copied.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_folder_that_cannot_be_read_changes_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let before = key_of(&sign(&fixture.service).await);
    fixture.keys.write("half.pem", "-----BEGIN PRIVATE KEY-----\nMIGHAgEA");
    fixture.wait(RETIRED * 2);
    let error = refresh(fixture.service.clone()).await.expect_err("it is reported").to_string();
    assert!(error.contains("USER_SIGNING_KEY_FOLDER") && error.contains("half.pem"), "{error}");
    assert_eq!(published(&fixture.service).await.keys.len(), 1);
    assert_eq!(key_of(&sign(&fixture.service).await), before);
    fixture.keys.remove("half.pem");
    fixture.keys.write(".hidden.pem", "not a key");
    fixture.keys.write("readme.txt", "not a key");
    refresh(fixture.service.clone()).await.expect("only files that end with .pem are keys");
}

#[test]
fn a_key_file_that_cannot_sign_is_named_and_not_shown() {
    let refuse = |folder: &Path| Signer::read(folder, LEAD, "i", "a").err().expect("refused").to_string();
    let folder = Folder::new(1);
    folder.write("bad.pem", "not a key");
    let error = refuse(&folder.0);
    assert!(error.contains("bad.pem") && !error.contains("not a key"), "{error}");
    folder.remove("bad.pem");
    folder.add_of("other.pem", &ECDSA_P384_SHA384_FIXED_SIGNING);
    assert!(refuse(&folder.0).contains("P-256"), "another curve");
    assert!(refuse(Path::new("/nowhere")).contains("/nowhere"), "no folder");
    assert!(refuse(&Folder::new(0).0).contains("needs 1 to 20"), "no key");
    assert!(refuse(&Folder::new(21).0).contains("needs 1 to 20"), "too many");
}
