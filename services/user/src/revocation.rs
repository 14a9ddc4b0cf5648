//! Sessions that end early: how, and the list of those whose access tokens have not expired yet, which every role polls.
//!
//! Only sessions are listed. Whatever ends all sessions of a user lists each of them: a user has few, and a later session of
//! the same user is valid.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use chassis::Unexpected;
use chassis::boot::metrics;
use chassis::rpc::token::Revoked;
use prometheus_client::metrics::counter::Counter;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::document;
use crate::service::Service;
use crate::session::SessionId;
use crate::signing::LIFETIME;

/// How long a session is listed: as long as its access tokens are accepted, and a minute, as clocks differ and a token may
/// have been signed while the session was being ended.
pub(crate) const LISTED: Duration = LIFETIME.saturating_add(Duration::from_secs(60));
/// The most sessions that are listed: what the roles accept. Signing in costs so much that no more can end in that time.
const MOST: i64 = 400_000;

static FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::register("user_revoked_failures", "Requests for the revoked sessions that failed", Counter::default())
});
static FAILS: AtomicBool = AtomicBool::new(false);

/// Ends sessions, and returns how many there were. The caller has locked their rows, or the row of their account.
pub(crate) async fn end_sessions(
    db: &mut PgConnection,
    sessions: &[SessionId],
    now: OffsetDateTime,
) -> Result<u64, Unexpected> {
    if sessions.is_empty() {
        return Ok(0);
    }
    let ended = sqlx::query!(
        "with ended as (delete from session where session_id = any($1) returning session_id)
         insert into revocation (session_id, revoked_at) select session_id, $2 from ended on conflict do nothing",
        sessions as &[SessionId],
        now,
    );
    Ok(ended.execute(db).await?.rows_affected())
}

/// The sessions that were revoked, for every other role.
pub(crate) fn page(service: &Arc<Service>) -> MethodRouter {
    get(read).with_state(service.clone())
}

async fn read(State(service): State<Arc<Service>>, request: HeaderMap) -> Response {
    let listed = match list(&service).await {
        Ok(listed) => listed,
        Err(error) => {
            FAILURES.inc();
            if !FAILS.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the revoked sessions cannot be listed; roles keep their last lists");
            }
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    };
    FAILS.store(false, Ordering::Relaxed);
    document::answer(&request, "no-cache", serde_json::to_string(&listed).expect("ids are plain data"))
}

/// Newest first, so that in an excess those are missing that expire next.
async fn list(service: &Service) -> Result<Revoked, Unexpected> {
    let session_ids = sqlx::query_scalar!(
        "select session_id from revocation where revoked_at > $1 order by revoked_at desc, session_id limit $2",
        service.clock.now() - LISTED,
        MOST,
    );
    let session_ids = session_ids.fetch_all(&service.db).await?;
    if session_ids.len() as i64 == MOST {
        FAILURES.inc();
        tracing::error!(most = MOST, "more sessions were revoked than are listed");
    }
    Ok(Revoked { session_ids })
}
