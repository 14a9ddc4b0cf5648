//! Change a password. The caller knows the current one, and all other sessions end.

use chassis::{Caller, Owner};
use contracts::souk::user::v1::{ChangePasswordRequest, ChangePasswordResponse};

use crate::account::{self, Account, UserId};
use crate::error::Error;
use crate::password::{NewPassword, Queue};
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::{SessionId, least_used};

pub(crate) async fn change(
    service: &Service,
    caller: &Caller,
    request: ChangePasswordRequest,
) -> Result<ChangePasswordResponse, Error> {
    let user_id = account::parse_id(&request.user_id, caller)?;
    // An operator does not know the password of another user, and does not set it.
    let owner = Owner::Only(caller.user_id()?);
    let new_password = NewPassword::parse(&request.new_password, "new_password")?;
    let mut db = service.db.acquire().await?;
    let known = account::find_password(&mut db, user_id, owner).await?.ok_or(Error::UserNotFound)?;
    drop(db);
    let new_password = new_password.of(&known.email, &known.display_name);
    let current = SessionId::new(caller.session_id()?);
    let checked = check_current(service, caller, request.current_password, known.hash, (user_id, current)).await;
    checked.inspect_err(|error| service.password_log.current_password_refused(user_id, current, error))?;
    let password_hash = service.passwords.hash_new(new_password, caller.deadline).await?;

    let mut tx = service.db.begin().await?;
    let mut account = Account::lock(&mut tx, user_id, owner).await?.ok_or(Error::UserNotFound)?;
    if account.password_version != known.version {
        return Err(Error::PasswordWrong);
    }
    let now = service.clock.now();
    account.set_password(&mut tx, &password_hash, now).await?;
    let mut others = least_used(&mut tx, user_id, 0).await?;
    others.retain(|session_id| *session_id != current);
    let ended = end_sessions(&mut tx, &others, now).await?;
    tx.commit().await?;
    tracing::info!(%user_id, ended, "a password was changed");
    let device_token = service.throttle.device_token(user_id, account.password_version, rand::random());
    Ok(ChangePasswordResponse { device_token })
}

/// Only who has a session of the account gets here.
async fn check_current(
    service: &Service,
    caller: &Caller,
    password: String,
    hash: String,
    (user_id, session_id): (UserId, SessionId),
) -> Result<(), Error> {
    let place = service.passwords.place(Queue::Known(user_id))?;
    let attempts = service.throttle.attempts_in_session(user_id, session_id);
    let attempt = service.throttle.begin(&attempts).await?;
    match service.passwords.check(place, password, hash, caller.deadline).await {
        Ok(right) => right.ok_or(Error::PasswordWrong)?,
        Err(error) => {
            service.throttle.take_back(attempt).await;
            return Err(error);
        }
    };
    service.throttle.succeeded(attempt).await;
    Ok(())
}
