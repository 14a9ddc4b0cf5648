use std::time::Duration;

use chassis::{Explain, Refusal, Unexpected};
use tonic::Code;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such user")]
    UserNotFound,
    #[error("this e-mail address has an account")]
    EmailTaken,
    #[error("the e-mail address or the password is wrong")]
    CredentialsInvalid,
    #[error("the current password is not this one")]
    PasswordWrong,
    #[error("must not be so easy to guess: use words that do not belong together")]
    PasswordCommon { field: &'static str },
    #[error("the link was used or has expired, or was not made here")]
    MailTokenInvalid,
    #[error("there is no such mail to send any more")]
    MailRequestNotFound,
    #[error("the account is disabled")]
    UserDisabled,
    #[error("the refresh token is unknown, or its session has ended")]
    RefreshTokenInvalid,
    #[error("the refresh token was used before; its session was ended")]
    RefreshTokenReused,
    #[error("there is no such session")]
    SessionNotFound,
    #[error("too many wrong passwords; try again in {} s", .wait.as_secs() + 1)]
    LoginThrottled { wait: Duration },
    #[error("too many passwords are being checked; try again")]
    PasswordChecksBusy,
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::USER.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        Ok(match self {
            Self::UserNotFound => Refusal::new(Code::NotFound, "USER_NOT_FOUND", text),
            Self::EmailTaken => Refusal::new(Code::AlreadyExists, "EMAIL_TAKEN", &text).field("email", text),
            Self::CredentialsInvalid => Refusal::new(Code::Unauthenticated, "CREDENTIALS_INVALID", text),
            Self::PasswordWrong => Refusal::invalid("PASSWORD_WRONG", ["current_password"], text),
            Self::PasswordCommon { field } => Refusal::invalid("PASSWORD_COMMON", [field], text),
            Self::MailTokenInvalid => Refusal::invalid("MAIL_TOKEN_INVALID", ["token"], text),
            Self::MailRequestNotFound => Refusal::new(Code::NotFound, "MAIL_REQUEST_NOT_FOUND", text),
            Self::UserDisabled => Refusal::new(Code::PermissionDenied, "USER_DISABLED", text),
            Self::RefreshTokenInvalid => Refusal::new(Code::Unauthenticated, "REFRESH_TOKEN_INVALID", text),
            Self::RefreshTokenReused => Refusal::new(Code::Unauthenticated, "REFRESH_TOKEN_REUSED", text),
            Self::SessionNotFound => Refusal::new(Code::NotFound, "SESSION_NOT_FOUND", text),
            Self::LoginThrottled { wait } => {
                Refusal::new(Code::ResourceExhausted, "LOGIN_THROTTLED", text).retry_after(wait)
            }
            Self::PasswordChecksBusy => Refusal::new(Code::ResourceExhausted, "PASSWORD_CHECKS_BUSY", text)
                .retry_after(Duration::from_millis(500)),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
