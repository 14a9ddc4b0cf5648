//! Payments that wait for their order: money is held, and the next event of the order should have been consumed. The order
//! service is asked for the state of the order, and the answer sets the goal as the event would have.

use std::sync::Arc;
use std::time::Duration;

use chassis::Did;
use chassis::rpc::client;
use chassis::{Error, Unexpected};
use contracts::souk::order::v1::{BatchGetOrderStatesRequest, OrderState};
use tokio::time::Instant;
use uuid::Uuid;

use crate::goal::{Wanted, set_goals};
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::Goal;

const BATCH: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a payment waits before its order is asked about.
const WAITED: Duration = Duration::from_secs(60);

pub(crate) async fn settle_waiting(service: Arc<Service>) -> Result<Did, Unexpected> {
    let orders = sqlx::query_scalar!(
        "select order_id from payment
         where goal = 'AUTHORIZED' and state = 'AUTHORIZED' and updated_at < $1
           and (order_asked_at is null or order_asked_at < $1)
         order by updated_at limit $2",
        service.clock.now() - WAITED,
        BATCH,
    )
    .fetch_all(&service.db)
    .await?;
    if orders.is_empty() {
        return Ok(Did::Nothing);
    }
    tracing::warn!(count = orders.len(), "payments wait for their orders: the order service is asked for their states");
    let ask = BatchGetOrderStatesRequest { order_ids: orders.iter().map(Uuid::to_string).collect() };
    let ask = client::request("payment", Instant::now() + PATIENCE, ask);
    let answer = service.orders.clone().batch_get_order_states(ask).await;
    let answer = answer.map_err(|status| match client::failed("order", status) {
        Error::Unexpected(unexpected) => unexpected,
        error => Unexpected::Peer { peer: "order", source: error.into() },
    })?;
    let mut wanted = Vec::new();
    for order in answer.into_inner().orders {
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
    // Orders that are not settled, or not known, are asked for again later. This is written only now, so that payments stay due
    // while the order service does not answer.
    sqlx::query!("update payment set order_asked_at = $2 where order_id = any($1)", &orders, service.clock.now())
        .execute(&service.db)
        .await?;
    Ok(Did::Something)
}
