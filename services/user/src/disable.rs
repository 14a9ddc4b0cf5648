//! Disable an account: its sessions end, and nobody signs in to it until it is enabled.

use chassis::{Caller, Owner};
use contracts::souk::user::v1::{DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse};

use crate::account::{self, Account};
use crate::error::Error;
use crate::mail::{self, Purpose};
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::least_used;

pub(crate) async fn disable(
    service: &Service,
    caller: &Caller,
    request: DisableUserRequest,
) -> Result<DisableUserResponse, Error> {
    let user_id = account::parse_id(&request.user_id, caller)?;
    let mut tx = service.db.begin().await?;
    let mut account = Account::lock(&mut tx, user_id, Owner::Anybody).await?.ok_or(Error::UserNotFound)?;
    let now = service.clock.now();
    if account.disabled_at.is_none() {
        account.disabled_at = Some(now);
        account.save(&mut tx, now).await?;
    }
    mail::end(&mut tx, user_id, Purpose::ResetPassword, now).await?;
    let sessions = least_used(&mut tx, user_id, 0).await?;
    let ended = end_sessions(&mut tx, &sessions, now).await?;
    tx.commit().await?;
    tracing::info!(%user_id, ended, actor = caller.actor(), "an account was disabled");
    Ok(DisableUserResponse { user: Some(account.to_proto()) })
}

pub(crate) async fn enable(
    service: &Service,
    caller: &Caller,
    request: EnableUserRequest,
) -> Result<EnableUserResponse, Error> {
    let user_id = account::parse_id(&request.user_id, caller)?;
    let mut tx = service.db.begin().await?;
    let mut account = Account::lock(&mut tx, user_id, Owner::Anybody).await?.ok_or(Error::UserNotFound)?;
    let (disabled_at, refused_at) = (account.disabled_at.take(), account.email_refused_at.take());
    if disabled_at.is_some() || refused_at.is_some() {
        account.save(&mut tx, service.clock.now()).await?;
    }
    tx.commit().await?;
    tracing::info!(%user_id, actor = caller.actor(), "an account was enabled");
    Ok(EnableUserResponse { user: Some(account.to_proto()) })
}
