//! Payments that wait for their order: the amount is authorized, and the next event of the order is overdue. The state of the
//! order is read from the order service, and sets the goal as the event would have.

use std::sync::Arc;
use std::time::Duration;

use chassis::Next;
use chassis::rpc::client;
use chassis::{Error, Unexpected};
use contracts::souk::order::v1::{BatchGetOrderStatesRequest, OrderState};
use tokio::time::Instant;
use uuid::Uuid;

use crate::goal::{Wanted, set_goals};
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::Goal;

const MAX_ORDERS: i64 = 100;
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a payment waits before the state of its order is read.
const OVERDUE: Duration = Duration::from_secs(60);

pub(crate) async fn apply_order_states(service: Arc<Service>) -> Result<Next, Unexpected> {
    let orders = sqlx::query_scalar!(
        "select order_id from payment
         where goal = 'AUTHORIZED' and state = 'AUTHORIZED' and updated_at < $1
           and (order_asked_at is null or order_asked_at < $1)
         order by updated_at limit $2",
        service.clock.now() - OVERDUE,
        MAX_ORDERS,
    )
    .fetch_all(&service.db)
    .await?;
    if orders.is_empty() {
        return Ok(Next::AfterPause);
    }
    tracing::warn!(
        count = orders.len(),
        "the events of some orders are overdue: payment reads the states of the orders from the order service"
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
    let mut wanted = Vec::new();
    for order in response.orders {
        let goal = match order.state() {
            OrderState::Confirmed | OrderState::Fulfilled => Goal::Captured,
            OrderState::Rejected | OrderState::PaymentFailed | OrderState::Cancelled | OrderState::Expired => {
                Goal::Released
            }
            OrderState::Pending | OrderState::Reserved | OrderState::Unspecified => continue,
        };
        let order_id = Uuid::parse_str(&order.order_id).map(OrderId::new);
        let order_id = order_id.map_err(|error| Unexpected::Broken(format!("order {:?}: {error}", order.order_id)))?;
        wanted.push(Wanted { order_id, version: order.version, goal, cause: Uuid::nil(), begins: None });
    }
    set_goals(&mut *service.db.acquire().await?, &service.clock, wanted).await?;
    service.work.wake();
    // The states of orders that are in progress, or not known, are read again later. This is written only now, so that payments
    // stay due while the order service does not respond.
    sqlx::query!(
        // In the order of ids, as consumers lock them.
        "with asked as (select payment_id from payment where order_id = any($1) order by order_id for no key update)
         update payment set order_asked_at = $2 from asked where payment.payment_id = asked.payment_id",
        &orders,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    Ok(Next::AtOnce)
}
