//! Exchange a refresh token for an access token and the next refresh token.
//!
//! Concurrent calls with one token wait for each other at the row of its session: the first exchanges the token, and the
//! others get the same successor. A used token that is presented later was stolen, by the one who used it first or by the one who
//! presents it now, so the session ends for both.

use std::sync::LazyLock;

use chassis::boot::metrics::{self, ByOutcome};
use chassis::timestamp;
use contracts::souk::user::v1::{RefreshSessionRequest, RefreshSessionResponse};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Metrics;

use crate::error::Error;
use crate::refresh_token::RefreshToken;
use crate::revocation::end_sessions;
use crate::service::Service;
use crate::session::{Family, Session};

static REFRESHES: LazyLock<Metrics<ByOutcome, Counter>> = LazyLock::new(|| {
    metrics::register("user_refreshes", "Calls with a refresh token, by what became of it", Metrics::default())
});

pub(crate) async fn refresh(
    service: &Service,
    request: RefreshSessionRequest,
) -> Result<RefreshSessionResponse, Error> {
    let refreshed = exchange(service, &request.refresh_token).await;
    let outcome = match &refreshed {
        Ok(_) => "refreshed",
        Err(Error::RefreshTokenInvalid) => "invalid",
        Err(Error::RefreshTokenReused) => "reused",
        Err(_) => "failed",
    };
    REFRESHES.get_or_create(&ByOutcome::new(outcome)).inc();
    refreshed
}

async fn exchange(service: &Service, presented: &str) -> Result<RefreshSessionResponse, Error> {
    let presented = RefreshToken::parse(presented).ok_or(Error::RefreshTokenInvalid)?;
    let mut tx = service.db.begin().await?;
    let family = Session::lock_family(&mut tx, &presented).await?.ok_or(Error::RefreshTokenInvalid)?;
    let Family { mut session, role, refresh_hash } = family;
    let now = service.clock.now();
    if service.sessions.end_of(&session) <= now {
        return Err(Error::RefreshTokenInvalid);
    }
    let next = if refresh_hash == presented.hash() {
        let successor = presented.successor();
        session.rotate(&mut tx, &presented, &successor, now).await?;
        Some(successor)
    } else {
        session.find_successor(&mut tx, &presented, now).await?
    };
    let Some(next) = next else {
        end_sessions(&mut tx, &[session.session_id], now).await?;
        tx.commit().await?;
        let (session_id, user_id) = (session.session_id, session.user_id);
        tracing::warn!(%session_id, %user_id, "a used refresh token was presented again; its session was ended");
        return Err(Error::RefreshTokenReused);
    };
    tx.commit().await?;

    let (access_token, expires) = service.sign(&session, role, now).await?;
    Ok(RefreshSessionResponse {
        access_token,
        expire_time: Some(timestamp(expires)),
        refresh_token: next.text(),
        session: Some(session.to_proto(&service.sessions, Some(session.session_id))),
    })
}
