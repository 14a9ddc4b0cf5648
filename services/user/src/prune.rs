//! Deletes what is over: sessions that expired, used refresh tokens that are not answered any more, revocations of sessions
//! whose access tokens have expired, links in mails that have expired and are not counted any more. Each run deletes one batch of each, except rows that another replica is deleting.

use std::sync::Arc;

use chassis::{Next, Unexpected};

use crate::mail::COUNTED;
use crate::revocation::LISTED;
use crate::service::Service;
use crate::session::REPEATABLE;

const BATCH: i64 = 1_000;

pub(crate) async fn prune(service: Arc<Service>) -> Result<Next, Unexpected> {
    let now = service.clock.now();
    // Their ids sort by time, so that no other index is needed.
    let oldest = (now - service.sessions.lifetime).unix_timestamp().unsigned_abs() * 1_000;
    let sessions = sqlx::query!(
        "delete from session where session_id in
           (select session_id from session where used_at <= $1 or session_id < $2 limit $3 for update skip locked)",
        now - service.sessions.idle,
        uuid::Builder::from_unix_timestamp_millis(oldest, &[0; 10]).into_uuid(),
        BATCH,
    );
    let used = sqlx::query!(
        "delete from session_used where token_hash in
           (select token_hash from session_used where used_at <= $1 limit $2 for update skip locked)",
        now - REPEATABLE,
        BATCH,
    );
    let revocations = sqlx::query!(
        "delete from revocation where session_id in
           (select session_id from revocation where revoked_at <= $1 limit $2 for update skip locked)",
        now - LISTED,
        BATCH,
    );
    let mails = sqlx::query!(
        "delete from mail_request where mail_request_id in
           (select mail_request_id from mail_request where expires_at <= $1 limit $2 for update skip locked)",
        now - COUNTED,
        BATCH,
    );
    let mut deleted = 0;
    for batch in [sessions, used, revocations, mails] {
        deleted += batch.execute(&service.db).await?.rows_affected();
    }
    Ok(Next::at_once_if(deleted > 0))
}
