//! Holds that grew old: the order they are for should have ended, and its event should have come. The order service is
//! asked how it stands, and the answer goes through the same decisions as the event would have.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::Did;
use chassis::boot::metrics;
use chassis::event::HandleError;
use chassis::rpc::client;
use chassis::{Error, Unexpected};
use contracts::souk::order::v1::{BatchGetOrderStatesRequest, OrderState, OrderStatus};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use crate::Service;
use crate::apply::{News, apply};
use crate::reservation::Heard;

static OLD: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register("holds_old", "Holds that the order service is asked about, 100 at most", Gauge::default())
});

const BATCH: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn settle_stale(service: Arc<Service>) -> Result<Did, Unexpected> {
    let old = service.clock.now() - service.hold_limit;
    let orders = sqlx::query_scalar!(
        "select order_id from reservation where state = 'HELD' and checked_at < $1 order by checked_at limit $2",
        old,
        BATCH,
    )
    .fetch_all(&service.db)
    .await?;
    OLD.set(orders.len() as i64);
    if orders.is_empty() {
        return Ok(Did::Nothing);
    }
    tracing::warn!(count = orders.len(), "holds grew old; the order service is asked about them");
    let ask = BatchGetOrderStatesRequest { order_ids: orders.iter().map(Uuid::to_string).collect() };
    let ask = client::request("inventory", Instant::now() + PATIENCE, ask);
    let answer = service.orders.clone().batch_get_order_states(ask).await;
    let answer = answer.map_err(|status| match client::failed("order", status) {
        Error::Unexpected(unexpected) => unexpected,
        error => Unexpected::Peer { peer: "order", source: error.into() },
    })?;
    let mut broken = None;
    for order in answer.into_inner().orders {
        match settle(&service, &order).await {
            Ok(()) => {}
            Err(error) if error.will_pass() => return Err(error),
            // The others must not wait for this one.
            Err(error) => broken = Some(error),
        }
    }
    service.published.wake();
    // Those whose orders go on, or are not known, are looked at again when as much time has passed once more. Only now:
    // as long as nobody answers they stay due.
    sqlx::query!(
        "update reservation set checked_at = $2 where order_id = any($1) and state = 'HELD'",
        &orders,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    broken.map_or(Ok(Did::Something), Err)
}

async fn settle(service: &Service, order: &OrderStatus) -> Result<(), Unexpected> {
    let heard = match order.state() {
        OrderState::Confirmed | OrderState::Fulfilled => Heard::Confirmed,
        OrderState::Rejected | OrderState::PaymentFailed | OrderState::Cancelled | OrderState::Expired => Heard::Ended,
        OrderState::Pending | OrderState::Reserved | OrderState::Unspecified => return Ok(()),
    };
    let broken = |why: String| Unexpected::Broken(format!("the hold of order {:?}: {why}", order.order_id));
    let order_id = Uuid::parse_str(&order.order_id).map_err(|error| broken(error.to_string()))?;
    let (version, span) = (order.version, Span::current());
    let news = News { order_id, user_id: None, version, heard, lines: vec![], causation_id: None, span };
    let mut tx = service.db.begin().await?;
    match apply(service, &mut tx, &[news]).await {
        Ok(()) => Ok(tx.commit().await?),
        Err(HandleError::Unexpected(error)) => Err(error),
        Err(HandleError::Poisoned(why)) => Err(broken(why)),
    }
}
