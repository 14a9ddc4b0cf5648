//! Which process publishes an outbox: the one whose session holds an advisory lock.
//!
//! The session is a connection of its own, never one of the pool. Postgres ends it when it was silent for three seconds, so
//! a process that was frozen wakes up without it; and we end it when it does not answer, by dropping it in the middle of
//! whatever it was doing, which no other user of a connection may do.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RelayError;
use crate::event::outbox::{Outbox, Wake};

/// How often a process that does not lead tries to.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// It tells the one that leads about its events, this often at most.
const NOTIFY_EVERY: Duration = Duration::from_millis(5);
/// How long the database may take to answer.
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
        // What is deleted twice was published twice, which is allowed; so nobody waits for the disk here.
        ("synchronous_commit", "off"),
    ]);
    in_time(PgConnection::connect_with(&options)).await
}

/// An answer of the database, or the end of the session.
pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, RelayError> {
    Ok(tokio::time::timeout(PATIENCE, answer).await.map_err(|_| RelayError::Silent)??)
}

/// Returns true when this process leads, or false when it is told to stop. Until then it passes wake-ups on to the process
/// that leads, outside of the transactions that they are about.
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

/// Makes a wake-up of our own from what other replicas say, until the guard is dropped.
pub(crate) async fn listen(db: &PgPool, wake: Wake) -> Result<DropGuard, RelayError> {
    let one = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let mut listener = in_time(PgListener::connect_with(&one.connect_lazy_with(options(db)))).await?;
    in_time(listener.listen("outbox")).await?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let heard = tokio::select! {
                heard = listener.recv() => heard,
                () = stopped.cancelled() => return,
            };
            if let Err(error) = heard {
                tracing::warn!(%error, "other replicas are not heard right now; their events wait for the tick");
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
            wake.wake();
        }
    });
    Ok(stop.drop_guard())
}
