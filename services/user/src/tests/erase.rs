use chassis::Next;
use contracts::souk::user::v1::user_event::Event;
use contracts::souk::user::v1::{EraseUserRequest, GetUserRequest, RequestPasswordResetRequest, UserEvent};
use prost::Message;
use sqlx::{AssertSqlSafe, PgPool};
use testkit::{published, reason};
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::register::PASSWORD;
use super::session::login;
use crate::reset_password::handle_request;

/// All rows of all tables, as text.
pub(super) async fn dump(db: &PgPool) -> String {
    let tables = "select quote_ident(table_name) from information_schema.tables where table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(db).await.expect("tables");
    let mut text = String::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(to_jsonb(it)::text, ' '), '') from {table} as it");
        text += &sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_one(db).await.expect("rows");
    }
    text
}

impl Fixture {
    async fn erase(&self, request: tonic::Request<EraseUserRequest>) -> Result<(), Status> {
        self.users.clone().erase_user(request).await.map(|_| ())
    }
}

fn me() -> EraseUserRequest {
    EraseUserRequest { user_id: "me".to_owned() }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nothing_personal_is_left(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let session = fixture.signed_in().await;
    let user_id = fixture.user_id().await;
    // A bytea is printed in hex: the stored response to the registration has the address, too.
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let traces =
        ["ada@example.com".to_owned(), hex("ada@example.com"), "Ada".to_owned(), hex("Ada"), "Firefox".to_owned()];
    let request = RequestPasswordResetRequest { email: "ada@example.com".to_owned() };
    fixture.users.clone().request_password_reset(request).await.expect("requested");
    let before = dump(&db).await;
    for trace in &traces {
        assert!(before.contains(trace), "{trace} is stored somewhere");
    }
    fixture.erase(fixture.kit.customer(user_id, me())).await.expect("erased");
    // The job deletes the request a moment later, as it does for an address without an account.
    while handle_request(fixture.service.clone()).await.expect("handled") == Next::AtOnce {}
    let after = dump(&db).await;
    for trace in &traces {
        assert!(!after.contains(trace), "{trace}: {after}");
    }
    assert_eq!(fixture.count().await, (0, 1), "its session has ended");
    fixture.refresh(&session.refresh_token).await.expect_err("it has ended");
    let get = fixture.kit.operator(GetUserRequest { user_id: user_id.to_string() });
    assert_eq!(reason(&fixture.users.clone().get_user(get).await.expect_err("gone")), "USER_NOT_FOUND@souk.user");
    let login = fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect_err("gone");
    assert_eq!(reason(&login), "CREDENTIALS_INVALID@souk.user");

    let events = published(&db).await;
    let event = UserEvent::decode(&*events[events.len() - 1].payload).expect("an event");
    assert!(matches!(event.event, Some(Event::UserErased(_))) && event.user_id == user_id.to_string());
    let versions = crate::check::versions(&db, Uuid::nil(), 10).await.expect("versions");
    assert_eq!(versions, [(user_id, events.len() as i64)], "souk check still knows how many events there are");

    fixture.register("k1", "ada@example.com").await.expect("the address is free, and the key is not used");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_the_user_and_operators_erase_an_account(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    fixture.register("k2", "bob@example.com").await.expect("registered");
    let ada = EraseUserRequest { user_id: fixture.user_id().await.to_string() };
    let refused = fixture.erase(fixture.kit.customer(Uuid::now_v7(), ada.clone())).await.expect_err("not theirs");
    assert_eq!(reason(&refused), "USER_NOT_FOUND@souk.user");
    fixture.erase(fixture.kit.operator(ada.clone())).await.expect("erased");
    let gone = fixture.erase(fixture.kit.operator(ada)).await.expect_err("it is gone");
    assert_eq!(reason(&gone), "USER_NOT_FOUND@souk.user");
    fixture.sessions.clone().create_session(login("bob@example.com", PASSWORD)).await.expect("another account");
}
