//! Who signs in and who is refused is in the log.

use contracts::souk::user::v1::ChangePasswordRequest;
use sqlx::PgPool;
use testkit::Log;
use uuid::Uuid;

use super::register::PASSWORD;
use super::session::login;
use super::{Fixture, PACE};

const WRONG: &str = "some other horse battery";

/// The only line with this text.
fn line(log: &Log, text: &str) -> String {
    let lines = log.find(text);
    assert_eq!(lines.len(), 1, "{text}: {lines:?}");
    lines.concat()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_login_is_logged_with_its_account_and_without_address_and_password(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let (log, user_id) = (Log::keep(), fixture.user_id().await);

    let session = fixture.sessions.clone().create_session(login("ada@example.com", PASSWORD)).await.expect("signed in");
    let signed_in = line(&log, "a user signed in");
    let session_id = session.into_inner().session.expect("a session").session_id;
    for part in [format!("user_id={user_id}"), format!("session_id=\"{session_id}\"")] {
        assert!(signed_in.contains(&part), "{part} is not in: {signed_in}");
    }

    fixture.sessions.clone().create_session(login("ada@example.com", WRONG)).await.expect_err("wrong");
    let refused = line(&log, "a login was refused");
    assert!(refused.contains("is wrong") && refused.contains(&format!("user_id={user_id}")), "{refused}");

    fixture.sessions.clone().create_session(login("eve@example.com", WRONG)).await.expect_err("unknown");
    let refused = log.find("a login was refused");
    assert!(refused.len() == 2 && !refused[1].contains("user_id"), "{refused:?}");
    for secret in ["@example.com", PASSWORD, WRONG] {
        assert_eq!(log.find(secret), [""; 0], "{secret}");
    }
    let page = chassis::boot::metrics::render();
    for outcome in ["signed_in", "credentials_invalid"] {
        assert!(page.contains(&format!("souk_user_logins_total{{outcome=\"{outcome}\"}}")), "{page}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn guessing_is_in_the_log(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let (log, user_id) = (Log::keep(), fixture.user_id().await);
    for _ in 0..=PACE.free {
        fixture.sessions.clone().create_session(login("ada@example.com", WRONG)).await.expect_err("wrong");
    }
    let throttled = line(&log, "too many wrong passwords");
    assert!(throttled.contains("WARN") && throttled.contains(&format!("user_id={user_id}")), "{throttled}");

    let session_id = Uuid::from_u128(7);
    let request = ChangePasswordRequest {
        user_id: "me".to_owned(),
        current_password: WRONG.to_owned(),
        new_password: PASSWORD.to_owned(),
    };
    let request = fixture.kit.session(user_id, session_id, request);
    fixture.users.clone().change_password(request).await.expect_err("not the current one");
    let refused = line(&log, "the current password was refused");
    for part in [format!("user_id={user_id}"), format!("session_id={session_id}")] {
        assert!(refused.contains(&part), "{part} is not in: {refused}");
    }
}
