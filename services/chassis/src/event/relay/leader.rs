//! Which process publishes an outbox: the one whose session holds an advisory lock.
//!
//! The session is a connection outside of the pool. Postgres ends it after three idle seconds, so a process that was frozen
//! wakes up without it; and we drop it when Postgres does not respond, even in the middle of a query, which is not allowed
//! for pooled connections.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RelayError;
use crate::boot::wake::Wake;
use crate::event::outbox::Outbox;

/// How often a process that does not lead tries to.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// It notifies the leader of new events at most this often.
const NOTIFY_EVERY: Duration = Duration::from_millis(5);
/// How long the database may take to respond.
const PATIENCE: Duration = Duration::from_secs(6);
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

fn options(db: &PgPool) -> PgConnectOptions {
    db.connect_options().as_ref().clone()
}

pub(crate) async fn connect(db: &PgPool) -> Result<PgConnection, RelayError> {
    let options = options(db).options([
        ("idle_session_timeout", "3s"),
        // Also when it waits for us to read, which does not count as silence.
        ("tcp_user_timeout", "3000"),
        // A deletion that is lost in a crash leads to a duplicate, which is allowed; so commits need not wait for the disk.
        ("synchronous_commit", "off"),
    ]);
    in_time(PgConnection::connect_with(&options)).await
}

/// The result of a query, or an error that ends the session.
pub(crate) async fn in_time<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, RelayError> {
    Ok(tokio::time::timeout(PATIENCE, query).await.map_err(|_| RelayError::Silent)??)
}

/// Returns true when this process leads, or false when `stop` is cancelled. Until then it notifies the leader of new events,
/// outside of the transactions that append them.
pub(crate) async fn follow(
    session: &mut PgConnection,
    outbox: &Outbox,
    stop: &CancellationToken,
) -> Result<bool, RelayError> {
    loop {
        let lock =
            sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtextextended('outbox relay', 0)) as "leads!""#);
        if in_time(lock.fetch_one(&mut *session)).await? {
            return Ok(true);
        }
        tokio::select! {
            () = outbox.wake.woken() => {}
            () = tokio::time::sleep(TRY_EVERY) => continue,
            () = stop.cancelled() => return Ok(false),
        }
        in_time(sqlx::query!("select pg_notify('outbox', '')").execute(&mut *session)).await?;
        tokio::time::sleep(NOTIFY_EVERY).await;
    }
}

/// Wakes the relay when another replica notifies it, until the guard is dropped.
pub(crate) async fn listen(db: &PgPool, wake: Wake) -> Result<DropGuard, RelayError> {
    let one = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let mut listener = in_time(PgListener::connect_with(&one.connect_lazy_with(options(db)))).await?;
    in_time(listener.listen("outbox")).await?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                received = listener.recv() => received,
                () = stopped.cancelled() => return,
            };
            if let Err(error) = received {
                tracing::warn!(%error, "the relay does not get notifications of other replicas; their events wait for the next tick");
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
            wake.wake();
        }
    });
    Ok(stop.drop_guard())
}
