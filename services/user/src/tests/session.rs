use std::time::Duration;

use chassis::respond;
use contracts::souk::user::v1::{CreateSessionRequest, RegisterUserRequest};
use sqlx::PgPool;
use testkit::{fields, reason};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Request};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::Fixture;
use super::register::{PASSWORD, registration};
use crate::account::UserId;
use crate::error::Error;
use crate::hash::Memory;
use crate::password::{NO_PASSWORD, Passwords, Queue, Right};

pub(super) fn login(email: &str, password: &str) -> Request<CreateSessionRequest> {
    Request::new(CreateSessionRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        device: "Firefox".to_owned(),
        device_token: String::new(),
    })
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_unknown_and_the_wrong_get_the_same_answer(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let wrong =
        fixture.sessions.clone().create_session(login("ada@example.com", "not my password")).await.expect_err("wrong");
    let unknown =
        fixture.sessions.clone().create_session(login("eve@example.com", PASSWORD)).await.expect_err("unknown");
    assert_eq!((wrong.code(), reason(&wrong)), (Code::Unauthenticated, "CREDENTIALS_INVALID@souk.user".into()));
    assert_eq!(
        (wrong.code(), wrong.message(), wrong.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
    let sessions =
        sqlx::query_scalar!(r#"select count(*) as "count!" from session"#).fetch_one(&fixture.service.db).await;
    assert_eq!(sessions.expect("counted"), 0);
}

/// What is asked of both is the check itself: where it fails, neither gets an answer.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_address_is_answered_without_a_check(db: PgPool) {
    Fixture::open(db.clone()).await.register("k1", "ada@example.com").await.expect("registered");
    let broken = Fixture::open_with(db, None, Passwords::without_threads()).await;
    for address in ["ada@example.com", "eve@example.com"] {
        let failed =
            broken.sessions.clone().create_session(login(address, PASSWORD)).await.expect_err("nothing is checked");
        assert_eq!(failed.code(), Code::Internal, "{address}: {failed}");
    }
}

/// A deadline that no caller of these tests reaches.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// A password that is checked against the hash of none.
async fn check(passwords: &Passwords, queue: Queue) -> Result<Option<Right>, Error> {
    passwords.check(passwords.place(queue)?, PASSWORD.to_owned(), NO_PASSWORD.to_owned(), later()).await
}

/// Not the time is compared, as a busy machine has its own, but what takes it.
#[tokio::test]
async fn the_unknown_cost_one_check_like_the_known_from_the_first_on() {
    let real = Memory::default().hash(PASSWORD).expect("hashed");
    let parameters = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
    assert_eq!(parameters(NO_PASSWORD), parameters(&real));
    assert_eq!(NO_PASSWORD.len(), real.len(), "salt and output have the same lengths");
    let checked = check(&Passwords::new(1), Queue::Anybody).await.expect("it can be checked");
    assert!(checked.is_none());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_session_has_tokens_and_keeps_only_the_hash_of_one(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let session = fixture.sessions.clone().create_session(login("ADA@example.com", PASSWORD)).await.expect("signed in");
    let session = session.into_inner();
    assert_eq!(session.access_token.split('.').count(), 3);
    assert_eq!(session.refresh_token.len(), 64, "16 bytes of the family, and 32 of its own");
    let stored =
        sqlx::query_scalar!("select refresh_hash from session").fetch_one(&fixture.service.db).await.expect("one row");
    assert_eq!(stored.len(), 32);
    assert_ne!(stored, session.refresh_token.as_bytes());
    let other =
        fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect("signed in again");
    let other = other.into_inner();
    assert_ne!(other.refresh_token, session.refresh_token);
    assert_ne!(other.session, session.session);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_cannot_be_an_address_or_a_password_is_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let none = fixture.sessions.clone().create_session(CreateSessionRequest::default()).await.expect_err("nothing");
    assert_eq!(fields(&none), ["email", "password"]);
    let nul = fixture.sessions.clone().create_session(login("a\0@example.com", PASSWORD)).await.expect_err("a NUL");
    assert_eq!((nul.code(), fields(&nul)), (Code::InvalidArgument, vec!["email".to_owned()]));
}

#[tokio::test]
async fn logins_beyond_the_queue_are_refused_and_may_come_back() {
    let passwords = std::sync::Arc::new(Passwords::new(1));
    let mut crowd = JoinSet::new();
    for _ in 0..60 {
        let passwords = passwords.clone();
        crowd.spawn(async move { check(&passwords, Queue::Anybody).await });
    }
    while passwords.has_place(Queue::Anybody) {
        tokio::task::yield_now().await;
    }
    let user_id = || UserId::new(Uuid::now_v7());
    assert!(check(&passwords, Queue::Known(user_id())).await.is_ok(), "a known device has a place");
    let mut busy: Vec<Error> = crowd.join_all().await.into_iter().filter_map(Result::err).collect();
    let served = 60 - busy.len();
    assert!((50..60).contains(&served), "{served} were let into the line");
    let status = respond::<(), _>(Err(busy.remove(0))).expect_err("it is refused");
    assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, "PASSWORD_CHECKS_BUSY@souk.user".into()));
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    assert!(check(&passwords, Queue::Anybody).await.is_ok(), "the line is free again");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_password_signs_in_however_it_is_typed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let composed = "caf\u{e9} au lait, bitte";
    let decomposed = "cafe\u{301} au lait, bitte";
    let request = RegisterUserRequest { password: decomposed.into(), ..registration("k1", "ada@example.com") };
    fixture.users.clone().register_user(request).await.expect("registered");
    for typed in [composed, decomposed, "cafe\u{301}\u{a0}au lait, bitte"] {
        fixture.sessions.clone().create_session(login("ada@example.com", typed)).await.expect(typed);
    }
    let other = fixture.sessions.clone().create_session(login("ada@example.com", "cafe au lait, bitte")).await;
    assert_eq!(reason(&other.expect_err("another letter")), "CREDENTIALS_INVALID@souk.user");

    let short = RegisterUserRequest { password: "e\u{301}".repeat(14), ..registration("k2", "bob@example.com") };
    assert_eq!(fields(&fixture.users.clone().register_user(short).await.expect_err("14 letters")), ["password"]);
}

/// Hashes that are older than the normalization are of what was typed.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_hash_of_what_was_typed_still_verifies(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let typed = "cafe\u{301} au lait, bitte";
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let old = Memory::default().hash(typed).expect("hashed");
    sqlx::query("update account set password_hash = $1").bind(old).execute(&db).await.expect("as it was stored");
    fixture.sessions.clone().create_session(login("ada@example.com", typed)).await.expect("as it was typed then");
    fixture
        .sessions
        .clone()
        .create_session(login("ada@example.com", "caf\u{e9} au lait, bitte"))
        .await
        .expect("replaced");
}

/// Also of an account that was opened when machines were slower.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_login_replaces_a_hash_with_weaker_parameters(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    // m=8192, t=1: of "correct horse battery".
    let params = argon2::Params::new(8_192, 1, 1, None).expect("parameters");
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let weak = argon2::password_hash::PasswordHasher::hash_password(&argon, PASSWORD.as_bytes()).expect("hashed");
    sqlx::query("update account set password_hash = $1").bind(weak.to_string()).execute(&db).await.expect("stored");
    let stored = async || {
        let query = sqlx::query_scalar::<_, String>("select password_hash from account");
        query.fetch_one(&db).await.expect("a hash")
    };
    let wrong = fixture.sessions.clone().create_session(login("ada@example.com", "not my password")).await;
    wrong.expect_err("the wrong one");
    assert_eq!(stored().await, weak.to_string());
    fixture.sign_in().await;
    let better = stored().await;
    assert!(better.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{better}");
    fixture.sign_in().await;
    assert_eq!(stored().await, better, "once is enough");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_common_password_is_refused_with_its_field(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for password in ["passwordpassword", "lovelace@ada2026"] {
        let request = RegisterUserRequest {
            password: password.into(),
            display_name: "Ada Lovelace".into(),
            ..registration("k1", "ada.lovelace@example.com")
        };
        let refused = fixture.users.clone().register_user(request).await.expect_err("common");
        assert_eq!((reason(&refused), fields(&refused)), ("PASSWORD_COMMON@souk.user".into(), vec!["password".into()]));
    }
}
