//! Sign in. An unknown e-mail address and a wrong password get the same response, after the same time.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{Caller, Did, Unexpected, timestamp};
use contracts::email;
use contracts::souk::user::v1::{CreateSessionRequest, CreateSessionResponse, Session};
use sha2::{Digest, Sha256};

use crate::account::{Role, UserId};
use crate::error::Error;
use crate::password::NO_PASSWORD;
use crate::service::Service;

/// How long a session is kept. Its access token expires after minutes, and nothing reads the session later yet.
pub(crate) const KEPT: time::Duration = time::Duration::days(30);

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateSessionRequest,
) -> Result<CreateSessionResponse, Error> {
    // Addresses that were registered before today's checks can still sign in.
    let email = email::normalize(&request.email).unwrap_or_else(|_| request.email.to_lowercase());
    let account = sqlx::query!(
        r#"select user_id as "user_id: UserId", role as "role: Role", password_hash from account where email = $1"#,
        email,
    )
    .fetch_optional(&service.db)
    .await?;
    let hash = account.as_ref().map_or(NO_PASSWORD, |account| &account.password_hash).to_owned();
    let is_correct = service.passwords.verify(request.password, hash, caller.deadline).await?;
    let account = account.filter(|_| is_correct).ok_or(Error::CredentialsInvalid)?;

    let (session_id, now) = (service.clock.new_id(), service.clock.now());
    let refresh_token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    sqlx::query!(
        "insert into session (session_id, user_id, refresh_hash, created_at) values ($1, $2, $3, $4)",
        session_id,
        account.user_id as UserId,
        Sha256::digest(&refresh_token).to_vec(),
        now,
    )
    .execute(&service.db)
    .await?;

    let (access_token, expires) = service.signer.sign(account.user_id, session_id, account.role, now)?;
    Ok(CreateSessionResponse {
        access_token,
        expire_time: Some(timestamp(expires)),
        refresh_token,
        session: Some(Session { session_id: session_id.to_string(), create_time: Some(timestamp(now)) }),
    })
}

/// Deletes one batch of sessions that are too old, except those that another replica is deleting. Their ids sort by time, so that
/// no other index is needed.
pub(crate) async fn delete_old(service: Arc<Service>) -> Result<Did, Unexpected> {
    let now = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&service.db).await?;
    let oldest = (now - KEPT).unix_timestamp().unsigned_abs() * 1_000;
    let done = sqlx::query!(
        "delete from session where session_id in
           (select session_id from session where session_id < $1 order by session_id limit 1000 for update skip locked)",
        uuid::Builder::from_unix_timestamp_millis(oldest, &[0; 10]).into_uuid(),
    );
    Ok(Did::any(done.execute(&service.db).await?.rows_affected()))
}
