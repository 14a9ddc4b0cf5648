//! Guessing is slowed down, and does not lock the owner out.

use std::time::Duration;

use contracts::souk::user::v1::{ChangePasswordRequest, CreateSessionRequest, CreateSessionResponse};
use sqlx::PgPool;
use testkit::reason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::register::PASSWORD;
use super::{Fixture, PACE};
use crate::password::Passwords;
use crate::throttle::Pace;

impl Fixture {
    async fn try_password(
        &self,
        email: &str,
        password: &str,
        device_token: &str,
    ) -> Result<CreateSessionResponse, Status> {
        let request = CreateSessionRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            device_token: device_token.to_owned(),
            ..Default::default()
        };
        Ok(self.sessions.clone().create_session(request).await?.into_inner())
    }

    /// Wrong passwords until one is not checked any more; how many were checked, and how long to wait.
    async fn guess(&self, email: &str, device_token: &str) -> (u32, Duration) {
        for checked in 0..100 {
            let refused = self.try_password(email, "not my password", device_token).await.expect_err("wrong");
            if reason(&refused) == "LOGIN_THROTTLED@souk.user" {
                assert_eq!(refused.code(), Code::ResourceExhausted);
                let retry = refused.get_details_retry_info().and_then(|info| info.retry_delay);
                return (checked, retry.expect("it says when to come back"));
            }
            assert_eq!(reason(&refused), "CREDENTIALS_INVALID@souk.user");
        }
        panic!("nothing stops the guessing");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_known_device_signs_in_while_others_guess(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    fixture.register("k2", "bob@example.com").await.expect("registered");
    let mine = fixture.try_password("ada@example.com", PASSWORD, "").await.expect("signed in").device_token;
    let of_bob = fixture.try_password("bob@example.com", PASSWORD, "").await.expect("signed in").device_token;
    let (checked, wait) = fixture.guess("ada@example.com", "").await;
    assert_eq!(checked, PACE.free);
    assert!(wait <= PACE.first, "{wait:?}");
    for not_hers in ["", of_bob.as_str(), "x", &mine[1..]] {
        let refused = fixture.try_password("ada@example.com", PASSWORD, not_hers).await.expect_err("too early");
        assert_eq!(reason(&refused), "LOGIN_THROTTLED@souk.user", "{not_hers}");
    }
    let again = fixture.try_password("ada@example.com", PASSWORD, &mine).await.expect("a known device");
    assert_eq!(again.device_token, mine, "it stays the same");
    fixture.try_password("bob@example.com", PASSWORD, "").await.expect("another account");
    // A stolen token gives as many attempts as everybody has.
    assert_eq!(fixture.guess("ada@example.com", &mine).await.0, PACE.free);
}

/// A thief of a token has no places and attempts of a known device once the password is another.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_device_token_ends_when_the_password_is_replaced(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    let signed_in = fixture.try_password("ada@example.com", PASSWORD, "").await.expect("signed in");
    let (old, session_id) = (signed_in.device_token, signed_in.session.expect("a session").session_id);
    let request = ChangePasswordRequest {
        user_id: "me".to_owned(),
        current_password: PASSWORD.to_owned(),
        new_password: "another horse battery".to_owned(),
    };
    let session_id = session_id.parse().expect("a UUID");
    let request = fixture.kit.session(fixture.user_id().await, session_id, request);
    let new = fixture.users.clone().change_password(request).await.expect("changed").into_inner().device_token;
    fixture.guess("ada@example.com", "").await;
    let refused = fixture.try_password("ada@example.com", "another horse battery", &old).await.expect_err("it ended");
    assert_eq!(reason(&refused), "LOGIN_THROTTLED@souk.user");
    fixture.try_password("ada@example.com", "another horse battery", &new).await.expect("a known device");
}

/// An address without an account is not told apart.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_unknown_are_throttled_like_the_known(db: PgPool) {
    let fixture = Fixture::open(db).await;
    assert_eq!(fixture.guess("eve@example.com", "").await.0, PACE.free);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_right_password_ends_the_count(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.register("k1", "ada@example.com").await.expect("registered");
    for _ in 1..PACE.free {
        fixture.try_password("ada@example.com", "not my password", "").await.expect_err("wrong");
    }
    fixture.try_password("ada@example.com", PASSWORD, "").await.expect("the last one without a wait");
    assert_eq!(fixture.guess("ada@example.com", "").await.0, PACE.free, "as at first");
}

/// A login that was refused because too many passwords were being checked is no wrong password.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_passwords_that_were_checked_count(db: PgPool) {
    let busy = Fixture::open_with(db, None, Passwords::new(0)).await;
    for _ in 0..2 * PACE.free {
        let refused = busy.try_password("ada@example.com", PASSWORD, "").await.expect_err("nothing is checked");
        assert_eq!(reason(&refused), "PASSWORD_CHECKS_BUSY@souk.user");
    }
}

#[test]
fn nobody_guesses_often() {
    let Pace { free, first, longest } = Pace::default();
    let (mut guesses, mut at, mut wait) = (free, Duration::ZERO, first);
    while at < Duration::from_secs(24 * 3_600) {
        (guesses, at, wait) = (guesses + 1, at + wait, (wait * 2).min(longest));
    }
    assert!(guesses < 150, "{guesses} a day");
}
