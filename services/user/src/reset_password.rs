//! Reset a forgotten password by a link in a mail.
//!
//! Who requests it learns nothing about the address: the call stores it, and a job finds out whether it has an account.

use std::sync::Arc;

use chassis::{Caller, Next, Owner, Unexpected};
use contracts::email;
use contracts::souk::user::v1::{
    RequestPasswordResetRequest, RequestPasswordResetResponse, ResetPasswordRequest, ResetPasswordResponse,
};

use crate::account::{self, Account, UserId};
use crate::error::Error;
use crate::mail::{self, Purpose};
use crate::password::NewPassword;
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::least_used;

/// How many mails a user gets within [`mail::COUNTED`] at most, however many were requested.
const MOST: i64 = 3;

pub(crate) async fn request(
    service: &Service,
    request: RequestPasswordResetRequest,
) -> Result<RequestPasswordResetResponse, Error> {
    let email = email::normalize(&request.email).map_err(|why| chassis::Error::field("email", why))?;
    sqlx::query!(
        "insert into reset_request (email, requested_at) values ($1, $2) on conflict do nothing",
        email,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    service.reset_requested.wake();
    Ok(RequestPasswordResetResponse {})
}

/// Handles the oldest request, unless another replica does: a mail for an account that is not disabled, nothing for others.
pub(crate) async fn handle_request(service: Arc<Service>) -> Result<Next, Unexpected> {
    let now = service.clock.now();
    let mut tx = service.db.begin().await?;
    let email = sqlx::query_scalar!(
        "delete from reset_request where email in
           (select email from reset_request order by requested_at limit 1 for update skip locked)
         returning email",
    );
    let Some(email) = email.fetch_optional(&mut *tx).await? else {
        return Ok(Next::AfterPause);
    };
    let user_id = sqlx::query_scalar!(
        r#"select user_id as "user_id: UserId" from account where email = $1 and disabled_at is null for no key update"#,
        email,
    );
    let mut requested = None;
    if let Some(user_id) = user_id.fetch_optional(&mut *tx).await? {
        let recent = sqlx::query_scalar!(
            r#"select count(*) as "count!" from mail_request where user_id = $1 and purpose = $2 and created_at > $3"#,
            user_id as UserId,
            Purpose::ResetPassword.name(),
            now - mail::COUNTED,
        );
        if recent.fetch_one(&mut *tx).await? < MOST {
            let actor = "anonymous".to_owned();
            requested = Some(mail::request(&service, &mut tx, user_id, Purpose::ResetPassword, actor).await?);
        }
    }
    tx.commit().await?;
    if let Some(id) = requested {
        service.published.wake();
        service.links.print(id, Purpose::ResetPassword);
    }
    Ok(Next::AtOnce)
}

pub(crate) async fn reset(
    service: &Service,
    caller: &Caller,
    request: ResetPasswordRequest,
) -> Result<ResetPasswordResponse, Error> {
    let (purpose, now) = (Purpose::ResetPassword, service.clock.now());
    let new_password = NewPassword::parse(&request.new_password, "new_password")?;
    let mut db = service.db.acquire().await?;
    let user_id = mail::find(&mut db, &request.token, purpose, now).await?.ok_or(Error::MailTokenInvalid)?;
    let known = account::find_password(&mut db, user_id, Owner::Anybody).await?.ok_or(Error::MailTokenInvalid)?;
    drop(db);
    let new_password = new_password.of(&known.email, &known.display_name);
    let password_hash = service.passwords.hash_new(new_password, caller.deadline).await?;

    let mut tx = service.db.begin().await?;
    let account = Account::lock(&mut tx, user_id, Owner::Anybody).await?;
    let mut account = account.ok_or(Error::MailTokenInvalid)?;
    if !mail::consume(&mut tx, user_id, &request.token, purpose, now).await? {
        return Err(Error::MailTokenInvalid);
    }
    account.set_password(&mut tx, &password_hash, now).await?;
    // The caller has the token, and so has read the mail.
    account.verify(&mut tx, now).await?;
    let sessions = least_used(&mut tx, user_id, 0).await?;
    let ended = end_sessions(&mut tx, &sessions, now).await?;
    tx.commit().await?;
    tracing::info!(%user_id, ended, "a password was reset");
    let device_token = service.throttle.device_token(user_id, account.password_version, rand::random());
    Ok(ResetPasswordResponse { device_token })
}
