//! Old holds, whose order should have been confirmed or ended by now. The state of the order is read from the order service, and
//! applied as its event would have been.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::Next;
use chassis::boot::metrics;
use chassis::event::HandleError;
use chassis::rpc::client;
use chassis::{Error, Unexpected};
use contracts::souk::order::v1::{BatchGetOrderStatesRequest, OrderState, OrderStatus};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use crate::apply::{OrderUpdate, apply};
use crate::ids::OrderId;
use crate::reservation::OrderPhase;
use crate::service::Service;

static OLD: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "holds_old",
        "Old holds whose order is read from the order service, 100 at most",
        Gauge::default(),
    )
});

const MAX_HOLDS: i64 = 100;
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn apply_order_states(service: Arc<Service>) -> Result<Next, Unexpected> {
    let old = service.clock.now() - service.hold_limit;
    let orders = sqlx::query_scalar!(
        "select order_id from reservation where state = 'HELD' and checked_at < $1 order by checked_at limit $2",
        old,
        MAX_HOLDS,
    )
    .fetch_all(&service.db)
    .await?;
    OLD.set(orders.len() as i64);
    if orders.is_empty() {
        return Ok(Next::AfterPause);
    }
    tracing::warn!(
        count = orders.len(),
        "holds are old: inventory reads the states of their orders from the order service"
    );
    let request = BatchGetOrderStatesRequest { order_ids: orders.iter().map(Uuid::to_string).collect() };
    let response = client::read(Instant::now() + PEER_TIMEOUT, request, |request| {
        let mut orders = service.orders.clone();
        async move { orders.batch_get_order_states(request).await }
    });
    let response = response.await.map_err(|status| match client::failed("order", status) {
        Error::Unexpected(unexpected) => unexpected,
        error => Unexpected::Peer { peer: "order", source: error.into() },
    })?;
    let mut broken = None;
    for order in response.orders {
        match apply_order_state(&service, &order).await {
            Ok(()) => {}
            Err(error) if error.will_pass() => return Err(error),
            // The others must not wait for this one.
            Err(error) => broken = Some(error),
        }
    }
    service.published.wake();
    // Holds whose orders are in progress, or not known, are checked again after the same time. This is written only now, so that
    // they stay due while the order service does not respond.
    sqlx::query!(
        // In the order of ids, as consumers lock them.
        "with checked as (
           select order_id from reservation where order_id = any($1) and state = 'HELD' order by order_id for no key update)
         update reservation set checked_at = $2 from checked where reservation.order_id = checked.order_id",
        &orders,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    broken.map_or(Ok(Next::AtOnce), Err)
}

async fn apply_order_state(service: &Service, order: &OrderStatus) -> Result<(), Unexpected> {
    let phase = match order.state() {
        OrderState::Confirmed | OrderState::Fulfilled => OrderPhase::Confirmed,
        OrderState::Rejected | OrderState::PaymentFailed | OrderState::Cancelled | OrderState::Expired => {
            OrderPhase::Ended
        }
        OrderState::Pending | OrderState::Reserved | OrderState::Unspecified => return Ok(()),
    };
    let broken = |why: String| Unexpected::Broken(format!("the hold of order {:?}: {why}", order.order_id));
    let order_id = OrderId::parse(&order.order_id).ok_or_else(|| broken("it is not a UUID".to_owned()))?;
    let (version, span) = (order.version, Span::current());
    let update =
        OrderUpdate { order_id, user_id: None, version, phase, lines: vec![], returned: None, event_id: None, span };
    let mut tx = service.db.begin().await?;
    match apply(service, &mut tx, &[update]).await {
        Ok(()) => Ok(tx.commit().await?),
        Err(HandleError::Unexpected(error)) => Err(error),
        Err(HandleError::Poisoned(why)) => Err(broken(why)),
    }
}
