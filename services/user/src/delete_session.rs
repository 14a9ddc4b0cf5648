//! Sign out a session: its refresh tokens are gone at once, and its access tokens are refused soon.

use chassis::Caller;
use contracts::souk::user::v1::{DeleteSessionRequest, DeleteSessionResponse};

use crate::error::Error;
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::{Session, SessionId};

pub(crate) async fn delete(
    service: &Service,
    caller: &Caller,
    request: DeleteSessionRequest,
) -> Result<DeleteSessionResponse, Error> {
    let session_id = if request.session_id == "current" {
        SessionId::new(caller.session_id()?)
    } else {
        SessionId::parse(&request.session_id).ok_or(Error::SessionNotFound)?
    };
    let mut tx = service.db.begin().await?;
    let session_id = Session::lock(&mut tx, session_id, caller.owner()?).await?.ok_or(Error::SessionNotFound)?;
    end_sessions(&mut tx, &[session_id], service.clock.now()).await?;
    tx.commit().await?;
    tracing::info!(%session_id, actor = caller.actor(), "a session was deleted");
    Ok(DeleteSessionResponse {})
}
