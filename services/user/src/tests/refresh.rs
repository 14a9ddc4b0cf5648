//! A refresh token is exchanged once, and a lost response does not end the session.

use std::time::Duration;

use chassis::Clock;
use contracts::souk::user::v1::{CreateSessionResponse, RefreshSessionRequest, RefreshSessionResponse};
use sqlx::PgPool;
use testkit::{Log, reason};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::register::PASSWORD;
use super::session::login;
use super::{DAY, Fixture, LIMITS};
use crate::password::Passwords;
use crate::session::REPEATABLE;

impl Fixture {
    /// A customer who has just signed in.
    pub(super) async fn signed_in(&self) -> CreateSessionResponse {
        if self.register("k1", "ada@example.com").await.is_err() {
            panic!("a customer can register");
        }
        self.sign_in().await
    }

    /// The same customer, signed in once more.
    pub(super) async fn sign_in(&self) -> CreateSessionResponse {
        let session = self.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await;
        session.expect("signed in").into_inner()
    }

    pub(super) async fn refresh(&self, refresh_token: &str) -> Result<RefreshSessionResponse, Status> {
        let request = RefreshSessionRequest { refresh_token: refresh_token.to_owned() };
        Ok(self.sessions.clone().refresh_session(request).await?.into_inner())
    }

    pub(super) fn wait(&self, time: Duration) {
        self.service.clock.advance(time);
    }

    /// How many sessions there are, and how many were revoked.
    pub(super) async fn count(&self) -> (i64, i64) {
        let query = sqlx::query_as("select (select count(*) from session), (select count(*) from revocation)");
        query.fetch_one(&self.service.db).await.expect("counted")
    }
}

fn assert_refused(refreshed: Result<RefreshSessionResponse, Status>, expected: &str) {
    let status = refreshed.expect_err("it is refused");
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, format!("{expected}@souk.user")));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_refresh_gives_the_next_token_of_the_same_session(db: PgPool) {
    let fixture = Fixture::open_with(db, Some(Clock::fixed(time::OffsetDateTime::now_utc())), Passwords::new(2)).await;
    let first = fixture.signed_in().await;
    let (mut token, session) = (first.refresh_token.clone(), first.session.clone().expect("a session"));
    for _ in 0..3 {
        fixture.wait(Duration::from_secs(300));
        let next = fixture.refresh(&token).await.expect("refreshed");
        assert_ne!(next.refresh_token, token);
        let now = next.session.expect("a session");
        assert_eq!(
            (&now.session_id, now.create_time, &now.device),
            (&session.session_id, session.create_time, &session.device)
        );
        let at = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
        assert!(at(now.last_use_time) > at(session.last_use_time) && at(now.expire_time) > at(session.expire_time));
        token = next.refresh_token;
    }
    assert_eq!(fixture.count().await, (1, 0));
}

/// The successor is never stored in plain text, and yet it is the same in each response.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lost_response_is_repeated_for_thirty_seconds(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = fixture.signed_in().await.refresh_token;
    let second = fixture.refresh(&first).await.expect("refreshed").refresh_token;
    fixture.wait(REPEATABLE - Duration::from_secs(1));
    assert_eq!(fixture.refresh(&first).await.expect("repeated").refresh_token, second);
    // Also when another program of the same client has used the successor meanwhile.
    let third = fixture.refresh(&second).await.expect("refreshed").refresh_token;
    assert_eq!(fixture.refresh(&first).await.expect("repeated").refresh_token, second);
    assert_eq!(fixture.refresh(&second).await.expect("repeated").refresh_token, third);

    let rows: Vec<String> = sqlx::query_scalar(
        "select to_jsonb(it)::text from session as it union all select to_jsonb(it)::text from session_used as it",
    )
    .fetch_all(&fixture.service.db)
    .await
    .expect("rows");
    assert_eq!(rows.len(), 3);
    for token in [&first, &second, &third] {
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token).expect("base64url");
        let secret: String = bytes[16..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!rows.iter().any(|row| row.contains(token) || row.contains(&secret)), "{rows:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn concurrent_calls_with_one_token_get_the_same_successor(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let token = fixture.signed_in().await.refresh_token;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let (mut sessions, refresh_token) = (fixture.sessions.clone(), token.clone());
        calls.spawn(async move { sessions.refresh_session(RefreshSessionRequest { refresh_token }).await });
    }
    let tokens: Vec<_> =
        calls.join_all().await.into_iter().map(|it| it.expect("refreshed").into_inner().refresh_token).collect();
    assert!(tokens.iter().all(|it| *it == tokens[0] && *it != token), "one successor");
    assert_eq!(fixture.count().await, (1, 0));
    fixture.refresh(&tokens[0]).await.expect("the successor is valid");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_used_token_that_comes_back_ends_the_session(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = fixture.signed_in().await;
    let other = fixture.sign_in().await.refresh_token;
    let second = fixture.refresh(&first.refresh_token).await.expect("refreshed").refresh_token;
    fixture.wait(REPEATABLE);
    let log = Log::keep();
    assert_refused(fixture.refresh(&first.refresh_token).await, "REFRESH_TOKEN_REUSED");
    let session_id = first.session.expect("a session").session_id;
    let revoked: Vec<uuid::Uuid> =
        sqlx::query_scalar("select session_id from revocation").fetch_all(&fixture.service.db).await.expect("listed");
    assert_eq!(revoked.iter().map(ToString::to_string).collect::<Vec<_>>(), [session_id]);
    // The thief of a token of the family has nothing left, and neither has its owner.
    assert_refused(fixture.refresh(&second).await, "REFRESH_TOKEN_INVALID");
    assert_refused(fixture.refresh(&first.refresh_token).await, "REFRESH_TOKEN_INVALID");
    fixture.refresh(&other).await.expect("the user's other session goes on");
    assert!(log.find(&second).is_empty() && log.find(&first.refresh_token).is_empty(), "no token is logged");
}

/// However old it is: what was used long ago is not stored, and recognised nevertheless.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_first_token_ends_the_session_after_many_refreshes(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = fixture.signed_in().await.refresh_token;
    let mut token = first.clone();
    for _ in 0..5 {
        fixture.wait(DAY);
        token = fixture.refresh(&token).await.expect("refreshed").refresh_token;
    }
    let kept: i64 =
        sqlx::query_scalar("select count(*) from session_used").fetch_one(&fixture.service.db).await.expect("counted");
    assert_eq!(kept, 1, "used tokens do not pile up");
    assert_refused(fixture.refresh(&first).await, "REFRESH_TOKEN_REUSED");
    assert_eq!(fixture.count().await, (0, 1));
}

/// Else anybody who saw the id of a session could end it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_never_was_a_token_ends_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let token = fixture.signed_in().await.refresh_token;
    for odd in ["x".to_owned(), "A".repeat(64), token[1..].to_owned(), format!("{}{}", &token[32..], &token[..32])] {
        assert_refused(fixture.refresh(&odd).await, "REFRESH_TOKEN_INVALID");
    }
    fixture.refresh(&token).await.expect("it is still valid");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_session_ends_when_it_is_idle_and_when_it_is_old(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut token = fixture.signed_in().await.refresh_token;
    let idle = fixture.sign_in().await.refresh_token;
    fixture.wait(LIMITS.idle - Duration::from_secs(1));
    token = fixture.refresh(&token).await.expect("just in time").refresh_token;
    fixture.wait(Duration::from_secs(1));
    assert_refused(fixture.refresh(&idle).await, "REFRESH_TOKEN_INVALID");

    fixture.wait(DAY * 29);
    token = fixture.refresh(&token).await.expect("in use").refresh_token;
    fixture.wait(DAY * 29);
    token = fixture.refresh(&token).await.expect("in use").refresh_token;
    fixture.wait(DAY * 2 - Duration::from_secs(60));
    let last = fixture.refresh(&token).await.expect("a minute before its end");
    let end = last.session.expect("a session").expire_time;
    assert_eq!(last.expire_time, end, "its access token does not outlive it");
    fixture.wait(Duration::from_secs(60));
    assert_refused(fixture.refresh(&last.refresh_token).await, "REFRESH_TOKEN_INVALID");
}

/// A role that changed since shows in the next access token.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refreshed_access_token_has_the_role_of_now(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let token = fixture.signed_in().await.refresh_token;
    sqlx::query("update account set role = 'OPERATOR'").execute(&fixture.service.db).await.expect("promoted");
    let access = fixture.refresh(&token).await.expect("refreshed").access_token;
    assert_eq!(super::signing::part(&access, 1)["role"], "operator");
}
