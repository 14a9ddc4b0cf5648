use contracts::souk::user::v1::{ChangePasswordRequest, Session};
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::register::PASSWORD;
use super::session::login;
use super::{Fixture, PACE};

const NEW: &str = "another horse battery";

impl Fixture {
    /// Ada changes her password in this session.
    pub(super) async fn change(&self, session_id: Uuid, current: &str, new: &str) -> Result<(), Status> {
        let request = ChangePasswordRequest {
            user_id: "me".to_owned(),
            current_password: current.to_owned(),
            new_password: new.to_owned(),
        };
        let request = self.kit.session(self.user_id().await, session_id, request);
        self.users.clone().change_password(request).await.map(|_| ())
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_other_sessions_end(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (here, other) = (fixture.signed_in().await, fixture.sign_in().await);
    let session_id = here.session.expect("a session").session_id.parse().expect("a UUID");
    fixture.change(session_id, PASSWORD, NEW).await.expect("changed");
    assert_eq!(fixture.count().await, (1, 1));
    fixture.refresh(&here.refresh_token).await.expect("the session that changed it goes on");
    fixture.refresh(&other.refresh_token).await.expect_err("it has ended");
    let old =
        fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect_err("the old one");
    assert_eq!(reason(&old), "CREDENTIALS_INVALID@souk.user");
    fixture.sessions.clone().create_session(login("ada@example.com", NEW)).await.expect("the new one");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_current_password_is_needed_and_the_new_one_must_be_good(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let session = fixture.signed_in().await;
    let wrong = fixture.change(Uuid::now_v7(), NEW, NEW).await.expect_err("not the current one");
    assert_eq!((wrong.code(), reason(&wrong)), (Code::InvalidArgument, "PASSWORD_WRONG@souk.user".into()));
    assert_eq!(fields(&wrong), ["current_password"]);
    for short in ["short".to_owned(), "e\u{301}".repeat(14)] {
        let refused = fixture.change(Uuid::now_v7(), PASSWORD, &short).await.expect_err("too short");
        assert_eq!(fields(&refused), ["new_password"]);
    }
    let common = fixture.change(Uuid::now_v7(), PASSWORD, "passwordpassword").await.expect_err("common");
    assert_eq!((reason(&common), fields(&common)), ("PASSWORD_COMMON@souk.user".into(), vec!["new_password".into()]));
    assert_eq!(fixture.count().await, (1, 0));
    fixture.refresh(&session.refresh_token).await.expect("nothing has changed");
}

/// Who has stolen a session does not find the password with it, and does not keep its owner from changing it.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn guessing_the_current_password_is_slowed_down(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (stolen, own) = (fixture.signed_in().await, fixture.sign_in().await);
    let id = |session: Option<Session>| session.expect("a session").session_id.parse().expect("a UUID");
    let stolen = id(stolen.session);
    for _ in 0..PACE.free {
        let wrong = fixture.change(stolen, NEW, NEW).await.expect_err("not the current one");
        assert_eq!(reason(&wrong), "PASSWORD_WRONG@souk.user");
    }
    let throttled = fixture.change(stolen, PASSWORD, NEW).await.expect_err("too early");
    assert_eq!((throttled.code(), reason(&throttled)), (Code::ResourceExhausted, "LOGIN_THROTTLED@souk.user".into()));
    fixture.change(id(own.session), PASSWORD, NEW).await.expect("another session has attempts of its own");
}

/// Not even an operator.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nobody_changes_the_password_of_another_user(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.signed_in().await;
    let request = ChangePasswordRequest {
        user_id: fixture.user_id().await.to_string(),
        current_password: PASSWORD.to_owned(),
        new_password: NEW.to_owned(),
    };
    for request in [fixture.kit.operator(request.clone()), fixture.kit.customer(Uuid::now_v7(), request)] {
        let refused = fixture.users.clone().change_password(request).await.expect_err("not theirs");
        assert_eq!(reason(&refused), "USER_NOT_FOUND@souk.user");
    }
}

/// Else a thief who knows the old password could keep a session that began a moment before the change.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_login_that_verified_the_former_password_makes_no_session(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let mut change = fixture.service.db.begin().await.expect("a change");
    sqlx::query("update account set password_version = password_version + 1")
        .execute(&mut *change)
        .await
        .expect("the row is locked");
    let mut sessions = fixture.sessions.clone();
    let login = tokio::spawn(async move { sessions.create_session(login("ada@example.com", PASSWORD)).await });
    // It has read the account before the change is committed: now it waits for the lock.
    let waits = "select exists (select from pg_locks where not granted
                   and database = (select oid from pg_database where datname = current_database())
                 union all select from pg_locks where not granted and locktype = 'transactionid')";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&fixture.service.db).await.expect("locks can be read") {}
    change.commit().await.expect("committed");
    let refused = login.await.expect("no panic").expect_err("its password is not the current one");
    assert_eq!(reason(&refused), "CREDENTIALS_INVALID@souk.user");
    assert_eq!(fixture.count().await, (0, 0));
}
