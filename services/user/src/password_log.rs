//! Counts and logs whose passwords are accepted and refused: never an address, never a password.
//!
//! There is a line for each password that was checked, as a check costs much more than a line, and its queues are bounded. Attempts
//! that are refused without a check cost nothing, so only some of their lines are logged.

use std::sync::LazyLock;

use chassis::boot::log_limit::LogLimit;
use chassis::boot::metrics::{self, ByOutcome};
use contracts::souk::user::v1::CreateSessionResponse;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tracing::field::display;

use crate::account::UserId;
use crate::error::Error;
use crate::session::SessionId;

/// Lines about attempts that were refused without a check.
const PER_SECOND: u32 = 10;

static LOGINS: LazyLock<Family<ByOutcome, Counter>> =
    LazyLock::new(|| metrics::register("user_logins", "Logins, by outcome", Family::default()));

pub(crate) struct PasswordLog {
    throttled: LogLimit,
}

impl PasswordLog {
    pub(crate) fn new() -> Self {
        Self { throttled: LogLimit::new(PER_SECOND) }
    }

    /// `user_id`: of the account with the address of the login.
    pub(crate) fn login(&self, user_id: Option<UserId>, login: &Result<CreateSessionResponse, Error>) {
        let outcome = match login {
            Ok(response) => {
                let session_id = response.session.as_ref().map(|session| session.session_id.as_str());
                tracing::info!(user_id = user_id.map(display), session_id, "a user signed in");
                "signed_in"
            }
            Err(error) => {
                self.refused("a login", user_id, None, error);
                match error {
                    Error::CredentialsInvalid => "credentials_invalid",
                    Error::UserDisabled => "user_disabled",
                    Error::LoginThrottled { .. } => "throttled",
                    Error::PasswordChecksBusy => "busy",
                    _ => "failed",
                }
            }
        };
        LOGINS.get_or_create(&ByOutcome::new(outcome)).inc();
    }

    /// The current password, as somebody with this session typed it.
    pub(crate) fn current_password_refused(&self, user_id: UserId, session_id: SessionId, error: &Error) {
        self.refused("the current password", Some(user_id), Some(session_id), error);
    }

    fn refused(&self, what: &str, user_id: Option<UserId>, session_id: Option<SessionId>, why: &Error) {
        let (user_id, session_id) = (user_id.map(display), session_id.map(display));
        match why {
            Error::CredentialsInvalid | Error::UserDisabled | Error::PasswordWrong => {
                tracing::info!(user_id, session_id, "{what} was refused: {why}");
            }
            Error::LoginThrottled { .. } => {
                if let Some(left_out) = self.throttled.admit() {
                    tracing::warn!(user_id, session_id, left_out, "{what} was refused: {why}");
                }
            }
            // Not because of the password; what is unexpected is logged where it is answered.
            _ => {}
        }
    }
}
