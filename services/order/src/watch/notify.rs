//! Tells other replicas which orders changed, and listens to them.
//!
//! The replica whose relay publishes the outbox sees the events of all replicas soon after they are committed, so it alone
//! notifies: outside of the transactions, many orders at once, and only while another replica watches any order. A
//! replica that does holds a lock in shared mode, which ends with its session.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::counter::Counter;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ids::OrderId;
use crate::service::Service;

const CHANNEL: &str = "order_changed";
/// Orders of one notification: Postgres allows 8,000 bytes.
const MAX_ORDERS: usize = 200;
/// Notifications wait so long for more orders.
const GATHER: Duration = Duration::from_millis(20);
/// A replica listens so long after its last watcher has left.
const LINGER: Duration = Duration::from_secs(30);
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

static FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    let help =
        "Lost sessions for notifications of changed orders; until the next one, watchers see changes a second later";
    metrics::register("order_listen_failures", help, Counter::default())
});

/// One unit of the job `order.notify_replicas`, which is woken when the relay has read events.
pub(crate) async fn notify_replicas(service: Arc<Service>) -> Result<Next, Unexpected> {
    let changed = service.changed.take();
    if changed.is_empty() {
        return Ok(Next::AfterPause);
    }
    service.watched.changed(changed.iter().copied().map(OrderId::new));
    if !service.watched.a_replica_may_watch() {
        return Ok(Next::AtOnce);
    }
    let payloads: Vec<_> = changed.chunks(MAX_ORDERS).map(|ids| write(service.watched.replica, ids)).collect();
    // If the lock is free, no replica watches, and nothing is sent; it is released when the statement ends.
    let notified = sqlx::query!(
        "select pg_notify($1, payload) from unnest($2::text[]) as payload
         where not (select pg_try_advisory_xact_lock(hashtextextended('orders are watched', 0)))",
        CHANNEL,
        &payloads,
    )
    .execute(&service.db)
    .await?;
    if notified.rows_affected() == 0 {
        service.watched.note_nobody_watches();
    }
    tokio::time::sleep(GATHER).await;
    Ok(Next::AtOnce)
}

/// Listens while an order is watched here, until `stop` is cancelled.
pub(crate) async fn listen(service: Arc<Service>, stop: CancellationToken) {
    while stop.run_until_cancelled(service.watched.until(|count| *count > 0)).await.is_some() {
        let Some(ended) = stop.run_until_cancelled(session(&service)).await else { return };
        if let Err(error) = ended {
            FAILURES.inc();
            tracing::warn!(%error, "changes of other replicas are not notified; watchers see them a second later");
            if stop.run_until_cancelled(tokio::time::sleep(LISTEN_AGAIN)).await.is_none() {
                return;
            }
        }
    }
}

async fn session(service: &Service) -> Result<(), sqlx::Error> {
    let one = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let options = service.db.connect_options().as_ref().clone();
    let mut listener = PgListener::connect_with(&one.connect_lazy_with(options)).await?;
    listener.listen(CHANNEL).await?;
    sqlx::query!("select pg_advisory_lock_shared(hashtextextended('orders are watched', 0))")
        .execute(&mut listener)
        .await?;
    // Changes before this were not notified.
    service.watched.changed(service.watched.all());
    let receive = async {
        loop {
            // None: the session is lost, and with it the lock.
            let Some(notification) = listener.try_recv().await? else { return Err(sqlx::Error::WorkerCrashed) };
            if let Some((replica, order_ids)) = read(notification.payload())
                && replica != service.watched.replica
            {
                service.watched.changed(order_ids);
            }
        }
    };
    let idle = async {
        loop {
            service.watched.until(|count| *count == 0).await;
            tokio::time::sleep(LINGER).await;
            if service.watched.count() == 0 {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = receive => ended,
        ended = idle => ended,
    }
}

fn write(replica: Uuid, order_ids: &[Uuid]) -> String {
    let ids = order_ids.iter().map(|id| id.simple().to_string());
    std::iter::once(replica.simple().to_string()).chain(ids).collect()
}

fn read(payload: &str) -> Option<(Uuid, Vec<OrderId>)> {
    let ids = payload.as_bytes().chunks(32).map(Uuid::try_parse_ascii);
    let mut ids = ids.collect::<Result<Vec<_>, _>>().ok()?.into_iter();
    Some((ids.next()?, ids.map(OrderId::new).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_has_as_many_orders_as_postgres_allows() {
        let (replica, ids) = (Uuid::now_v7(), vec![Uuid::now_v7(); MAX_ORDERS]);
        let payload = write(replica, &ids);
        assert!(payload.len() < 8_000, "{}", payload.len());
        assert_eq!(read(&payload), Some((replica, ids.into_iter().map(OrderId::new).collect())));
        for odd in ["", "nonsense", &payload[1..]] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
