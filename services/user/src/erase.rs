//! Erase an account: its row goes, with its sessions and the stored response to its registration, which has its name and
//! address. Other services hear of it by `UserErased`.

use chassis::Caller;
use chassis::rpc::idempotency;
use contracts::souk::user::v1::user_event::Event;
use contracts::souk::user::v1::{EraseUserRequest, EraseUserResponse, UserErased};

use crate::account::{self, Account};
use crate::error::Error;
use crate::event::publish;
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::least_used;

pub(crate) async fn erase(
    service: &Service,
    caller: &Caller,
    request: EraseUserRequest,
) -> Result<EraseUserResponse, Error> {
    let user_id = account::parse_id(&request.user_id, caller)?;
    let mut tx = service.db.begin().await?;
    let account = Account::lock(&mut tx, user_id, caller.owner()?).await?.ok_or(Error::UserNotFound)?;
    let now = service.clock.now();
    let sessions = least_used(&mut tx, user_id, 0).await?;
    end_sessions(&mut tx, &sessions, now).await?;
    idempotency::delete_about(&mut tx, &account.email).await?;
    let version = publish(service, &mut tx, user_id, Event::UserErased(UserErased {}), caller.actor()).await?;
    account.erase(&mut tx, version, now).await?;
    tx.commit().await?;
    service.published.wake();
    tracing::info!(%user_id, actor = caller.actor(), "an account was erased");
    Ok(EraseUserResponse {})
}
