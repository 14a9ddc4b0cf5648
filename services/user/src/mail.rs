//! Links in mails: what they are for, how long they are valid, and how their tokens are made.
//!
//! The token of a link is an HMAC of the id of its request. So an event needs only that id, a mail that is sent twice has the
//! same link, and the database has only a hash.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{Id, Unexpected};
use contracts::souk::user::v1::user_event::Event;
use contracts::souk::user::v1::{MailPurpose, MailRequested};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::account::UserId;
use crate::event::publish;
use crate::service::Service;

pub(crate) enum MailRequest {}

pub(crate) type MailRequestId = Id<MailRequest>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Purpose {
    ResetPassword,
    VerifyEmail,
}

impl Purpose {
    /// How long a link is valid.
    pub(crate) fn lifetime(self) -> Duration {
        match self {
            Self::ResetPassword => Duration::from_secs(30 * 60),
            Self::VerifyEmail => Duration::from_secs(3 * 24 * 3_600),
        }
    }

    /// Such as `VERIFY_EMAIL`, in the table and in the contract.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("MAIL_PURPOSE_")
    }

    pub(crate) fn to_proto(self) -> MailPurpose {
        match self {
            Self::ResetPassword => MailPurpose::ResetPassword,
            Self::VerifyEmail => MailPurpose::VerifyEmail,
        }
    }
}

/// Makes links.
pub(crate) struct Links {
    pub(crate) key: SecretString,
    /// The pages of the shop that take the token, without it.
    pub(crate) reset_page: String,
    pub(crate) verify_page: String,
    /// Whether links are logged, on a machine without mail.
    pub(crate) print: bool,
}

impl Links {
    /// 43 characters.
    fn token(&self, id: MailRequestId, purpose: Purpose) -> String {
        let key = self.key.expose_secret().as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(purpose.name().as_bytes());
        mac.update(id.0.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// The link of a request, unless its token was made with another key. Browsers do not send what follows the `#`, so the
    /// token is in no log of a server and in no Referer.
    pub(crate) fn link(&self, id: MailRequestId, purpose: Purpose, token_hash: &[u8]) -> Option<String> {
        let (token, page) = (self.token(id, purpose), self.page(purpose));
        (hash(&token) == token_hash).then(|| format!("{page}#token={token}"))
    }

    fn page(&self, purpose: Purpose) -> &str {
        match purpose {
            Purpose::ResetPassword => &self.reset_page,
            Purpose::VerifyEmail => &self.verify_page,
        }
    }

    /// For a person who tries this on a machine without mail.
    pub(crate) fn print(&self, id: MailRequestId, purpose: Purpose) {
        if self.print {
            let (token, page) = (self.token(id, purpose), self.page(purpose));
            tracing::info!(
                link = format!("{page}#token={token}"),
                purpose = purpose.name(),
                "a link was requested by mail"
            );
        }
    }
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// Requests a mail with a link, of a user whose account is locked.
pub(crate) async fn request(
    service: &Service,
    db: &mut PgConnection,
    user_id: UserId,
    purpose: Purpose,
    actor: String,
) -> Result<MailRequestId, Unexpected> {
    let (id, now) = (MailRequestId::new(service.clock.new_id()), service.clock.now());
    sqlx::query!(
        "insert into mail_request (mail_request_id, user_id, purpose, token_hash, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
        id as MailRequestId,
        user_id as UserId,
        purpose.name(),
        hash(&service.links.token(id, purpose)),
        now,
        now + purpose.lifetime(),
    )
    .execute(&mut *db)
    .await?;
    let event = MailRequested { mail_request_id: id.to_string(), purpose: purpose.to_proto().into() };
    publish(service, db, user_id, Event::MailRequested(event), actor).await?;
    Ok(id)
}

/// The user of a valid token.
pub(crate) async fn find(
    db: &mut PgConnection,
    token: &str,
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<Option<UserId>, Unexpected> {
    let user_id = sqlx::query_scalar!(
        r#"select user_id as "user_id: UserId" from mail_request
           where token_hash = $1 and purpose = $2 and expires_at > $3"#,
        hash(token),
        purpose.name(),
        now,
    );
    Ok(user_id.fetch_optional(db).await?)
}

/// How long requests are kept to be counted, also when their links have ended.
pub(crate) const COUNTED: Duration = Duration::from_secs(3_600);

/// Uses a token, once: it returns whether it was valid. The account of its user is locked. Tokens of other mails for the same
/// purpose are not valid afterwards.
pub(crate) async fn consume(
    db: &mut PgConnection,
    user_id: UserId,
    token: &str,
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<bool, Unexpected> {
    let is_valid = sqlx::query_scalar!(
        r#"select exists (
             select from mail_request where user_id = $1 and token_hash = $2 and purpose = $3 and expires_at > $4
           ) as "is_valid!""#,
        user_id as UserId,
        hash(token),
        purpose.name(),
        now,
    );
    let is_valid = is_valid.fetch_one(&mut *db).await?;
    if is_valid {
        end(db, user_id, purpose, now).await?;
    }
    Ok(is_valid)
}

/// Ends the links that were sent to a user for this purpose. The account of the user is locked.
pub(crate) async fn end(
    db: &mut PgConnection,
    user_id: UserId,
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<(), Unexpected> {
    sqlx::query!(
        "update mail_request set expires_at = $3 where user_id = $1 and purpose = $2 and expires_at > $3",
        user_id as UserId,
        purpose.name(),
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}
