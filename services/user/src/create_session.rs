//! Sign in. An unknown e-mail address and a wrong password get the same answer, after the same time.

use chassis::{Caller, timestamp};
use contracts::email;
use contracts::souk::user::v1::{CreateSessionRequest, CreateSessionResponse};

use crate::account::{Role, UserId};
use crate::error::Error;
use crate::password::{NO_PASSWORD, Queue};
use crate::refresh_token::RefreshToken;
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::{Session, SessionId, least_used};

/// The account of an address, as it is before the password is checked.
struct Known {
    user_id: UserId,
    password_hash: String,
    password_version: i64,
}

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateSessionRequest,
) -> Result<CreateSessionResponse, Error> {
    // Addresses that were registered before today's checks can still sign in.
    let email = email::normalize(&request.email).unwrap_or_else(|_| request.email.to_lowercase());
    let account = sqlx::query_as!(
        Known,
        r#"select user_id as "user_id: UserId", password_hash, password_version
           from account where email = $1"#,
        email,
    )
    .fetch_optional(&service.db)
    .await?;
    let user_id = account.as_ref().map(|account| account.user_id);
    let login = sign_in(service, caller, request, &email, account).await;
    service.password_log.login(user_id, &login);
    login
}

async fn sign_in(
    service: &Service,
    caller: &Caller,
    request: CreateSessionRequest,
    email: &str,
    account: Option<Known>,
) -> Result<CreateSessionResponse, Error> {
    let user_id = account.as_ref().map(|account| account.user_id);
    let device = account
        .as_ref()
        .and_then(|account| service.throttle.device(account.user_id, account.password_version, &request.device_token));
    let place = service.passwords.place(user_id.filter(|_| device.is_some()).map_or(Queue::Anybody, Queue::Known))?;
    let attempts = service.throttle.attempts(email, user_id, device);
    let attempt = service.throttle.begin(&attempts).await?;
    let hash = account.as_ref().map_or(NO_PASSWORD, |account| &account.password_hash).to_owned();
    let right = match service.passwords.check(place, request.password, hash, caller.deadline).await {
        Ok(right) => right,
        Err(error) => {
            service.throttle.take_back(attempt).await;
            return Err(error);
        }
    };
    let (account, right) = account.zip(right).ok_or(Error::CredentialsInvalid)?;
    service.throttle.succeeded(attempt).await;

    let mut tx = service.db.begin().await?;
    // Logins of one account wait for each other here, so that together they keep the number of its sessions. A change of
    // the password, and disabling or erasing the account, end all sessions under this lock, so none is made afterwards.
    let now_is = sqlx::query!(
        r#"select role as "role: Role", password_version, disabled_at from account where user_id = $1 for no key update"#,
        account.user_id as UserId,
    );
    let now_is = now_is.fetch_optional(&mut *tx).await?;
    let now_is = now_is.filter(|it| it.password_version == account.password_version);
    let now_is = now_is.ok_or(Error::CredentialsInvalid)?;
    if now_is.disabled_at.is_some() {
        return Err(Error::UserDisabled);
    }
    if let Some(better_hash) = right.better_hash {
        sqlx::query!(
            "update account set password_hash = $2 where user_id = $1",
            account.user_id as UserId,
            better_hash,
        )
        .execute(&mut *tx)
        .await?;
    }
    let now = service.clock.now();
    let kept = i64::from(service.sessions.per_user) - 1;
    let too_many = least_used(&mut tx, account.user_id, kept).await?;
    end_sessions(&mut tx, &too_many, now).await?;
    let session = Session {
        session_id: SessionId::new(service.clock.new_id()),
        user_id: account.user_id,
        device: request.device,
        created_at: now,
        used_at: now,
    };
    let refresh_token = RefreshToken::new();
    session.insert(&mut tx, &refresh_token).await?;
    tx.commit().await?;

    let (access_token, expires) = service.sign(&session, now_is.role, now).await?;
    Ok(CreateSessionResponse {
        access_token,
        expire_time: Some(timestamp(expires)),
        refresh_token: refresh_token.text(),
        session: Some(session.to_proto(&service.sessions, Some(session.session_id))),
        device_token: service.throttle.device_token(
            account.user_id,
            account.password_version,
            device.unwrap_or_else(rand::random),
        ),
    })
}
