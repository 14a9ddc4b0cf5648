//! A user sees their sessions, and ends them.

use contracts::souk::user::v1::{DeleteSessionRequest, ListSessionsRequest, Session};
use sqlx::PgPool;
use testkit::reason;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{DAY, Fixture, LIMITS};

impl Fixture {
    async fn list(&self, user_id: Uuid, session_id: Uuid, page_size: i32, page_token: &str) -> (Vec<Session>, String) {
        let request = ListSessionsRequest { page_size, page_token: page_token.to_owned() };
        let page = self.sessions.clone().list_sessions(self.kit.session(user_id, session_id, request)).await;
        let page = page.expect("listed").into_inner();
        (page.sessions, page.next_page_token)
    }

    pub(super) async fn user_id(&self) -> Uuid {
        sqlx::query_scalar("select user_id from account order by user_id")
            .fetch_one(&self.service.db)
            .await
            .expect("an account")
    }
}

fn id(session: Option<Session>) -> Uuid {
    session.expect("a session").session_id.parse().expect("a UUID")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn sessions_are_listed_newest_first_and_by_pages(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = id(fixture.signed_in().await.session);
    fixture.wait(DAY);
    let second = id(fixture.sign_in().await.session);
    let user_id = fixture.user_id().await;
    let (sessions, next) = fixture.list(user_id, first, 1, "").await;
    assert_eq!((sessions[0].session_id.as_str(), sessions[0].current), (second.to_string().as_str(), false));
    assert_eq!(sessions[0].device, "Firefox");
    let (sessions, next) = fixture.list(user_id, first, 1, &next).await;
    assert_eq!((sessions[0].session_id.as_str(), sessions[0].current), (first.to_string().as_str(), true));
    assert_eq!(next, "");
    assert!(fixture.list(Uuid::now_v7(), first, 0, "").await.0.is_empty(), "another user's");
    fixture.wait(LIMITS.idle - DAY);
    let (sessions, _) = fixture.list(user_id, second, 0, "").await;
    assert_eq!(sessions.len(), 1, "the first has expired");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_session_is_ended_by_its_user_or_an_operator(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let sessions = [fixture.signed_in().await, fixture.sign_in().await, fixture.sign_in().await]
        .map(|it| (id(it.session), it.refresh_token));
    let [(first, first_token), (second, _), (third, _)] = &sessions;
    let user_id = fixture.user_id().await;
    let delete =
        async |request| -> Result<(), Status> { fixture.sessions.clone().delete_session(request).await.map(|_| ()) };
    let named = |id: &str| DeleteSessionRequest { session_id: id.to_owned() };
    let of_another =
        delete(fixture.kit.customer(Uuid::now_v7(), named(&first.to_string()))).await.expect_err("not theirs");
    assert_eq!((of_another.code(), reason(&of_another)), (Code::NotFound, "SESSION_NOT_FOUND@souk.user".into()));
    assert_eq!(fixture.count().await, (3, 0));

    delete(fixture.kit.session(user_id, *first, named("current"))).await.expect("their own");
    let refused = fixture.refresh(first_token).await.expect_err("its refresh token is gone");
    assert_eq!(reason(&refused), "REFRESH_TOKEN_INVALID@souk.user");
    delete(fixture.kit.session(user_id, *third, named(&second.to_string().to_uppercase())))
        .await
        .expect("another of theirs");
    delete(fixture.kit.operator(named(&third.to_string()))).await.expect("by an operator");
    assert_eq!(fixture.count().await, (0, 3));
    let gone = delete(fixture.kit.session(user_id, *first, named("current"))).await.expect_err("it has ended");
    assert_eq!(reason(&gone), "SESSION_NOT_FOUND@souk.user");
}

/// The one that was not used for longest ends, also when many sign in at once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_user_has_a_bounded_number_of_sessions(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let first = fixture.signed_in().await;
    fixture.wait(DAY);
    let second = fixture.sign_in().await;
    fixture.wait(DAY);
    let first = fixture.refresh(&first.refresh_token).await.expect("in use");
    fixture.wait(DAY);
    fixture.sign_in().await;
    fixture.sign_in().await;
    assert_eq!(fixture.count().await, (i64::from(LIMITS.per_user), 1));
    fixture.refresh(&second.refresh_token).await.expect_err("it was not used for longest");
    fixture.refresh(&first.refresh_token).await.expect("it was used");

    let logins = std::iter::repeat_with(|| fixture.sign_in()).take(6);
    futures_util::future::join_all(logins).await;
    assert_eq!(fixture.count().await, (i64::from(LIMITS.per_user), 7));
}
