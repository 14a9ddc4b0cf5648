//! Sign in. An unknown e-mail address and a wrong password get the same answer, after the same time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::token::RoleClaim;
use chassis::{Caller, timestamp};
use contracts::email;
use contracts::souk::user::v1::{CreateSessionRequest, CreateSessionResponse, Session};
use sha2::{Digest, Sha256};

use crate::Service;
use crate::error::Error;
use crate::password::NOBODY;

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateSessionRequest,
) -> Result<CreateSessionResponse, Error> {
    // What was registered before addresses were looked at this closely can still sign in.
    let email = email::normalize(&request.email).unwrap_or_else(|_| request.email.to_lowercase());
    let account = sqlx::query!("select user_id, role, password_hash from account where email = $1", email)
        .fetch_optional(&service.db)
        .await?;
    let hash = account.as_ref().map_or(NOBODY, |account| &account.password_hash).to_owned();
    let right = service.passwords.verify(request.password, hash, caller.deadline).await?;
    let account = account.filter(|_| right).ok_or(Error::CredentialsInvalid)?;

    let (session_id, now) = (service.clock.new_id(), service.clock.now());
    let refresh_token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    sqlx::query!(
        "insert into session (session_id, user_id, refresh_hash, created_at) values ($1, $2, $3, $4)",
        session_id,
        account.user_id,
        Sha256::digest(&refresh_token).to_vec(),
        now,
    )
    .execute(&service.db)
    .await?;

    let role = if account.role == "OPERATOR" { RoleClaim::Operator } else { RoleClaim::Customer };
    let (access_token, expires) = service.signer.sign(account.user_id, session_id, role, now)?;
    Ok(CreateSessionResponse {
        access_token,
        expire_time: Some(timestamp(expires)),
        refresh_token,
        session: Some(Session { session_id: session_id.to_string(), create_time: Some(timestamp(now)) }),
    })
}
