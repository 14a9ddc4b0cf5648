//! Holds that grew old: the order they are for should have ended, and its event should have come. The order service is
//! asked how it stands, and the answer goes through the same decisions as the event would have.

use std::sync::Arc;
use std::time::Duration;

use chassis::consume::HandleError;
use chassis::step::Did;
use chassis::{Error, Unexpected, client};
use contracts::souk::order::v1::{BatchGetOrderStatesRequest, OrderState};
use tokio::time::Instant;
use uuid::Uuid;

use crate::Service;
use crate::on_event;
use crate::reservation::Heard;

const BATCH: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn settle_stale(service: Arc<Service>) -> Result<Did, Unexpected> {
    let old = service.clock.now() - service.hold_limit;
    let orders = sqlx::query_scalar!(
        "update reservation set checked_at = $2 where order_id in
           (select order_id from reservation where state = 'HELD' and checked_at < $1
            order by checked_at limit $3 for update skip locked)
         returning order_id",
        old,
        service.clock.now(),
        BATCH,
    )
    .fetch_all(&service.db)
    .await?;
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
    for order in answer.into_inner().orders {
        let heard = match order.state() {
            OrderState::Confirmed | OrderState::Fulfilled => Heard::Confirmed,
            OrderState::Rejected | OrderState::PaymentFailed | OrderState::Cancelled | OrderState::Expired => {
                Heard::Ended
            }
            OrderState::Pending | OrderState::Reserved | OrderState::Unspecified => continue,
        };
        let order_id = Uuid::parse_str(&order.order_id)
            .map_err(|_| Unexpected::Broken("the order service answered with an id that is none".to_owned()))?;
        settle(&service, order_id, heard).await?;
    }
    service.published.wake();
    Ok(Did::Something)
}

async fn settle(service: &Service, order_id: Uuid, heard: Heard) -> Result<(), Unexpected> {
    let mut tx = service.db.begin().await?;
    // No event made this happen; the order itself is named instead.
    match on_event::apply(service, &mut tx, order_id, heard, vec![], order_id).await {
        Ok(()) => Ok(tx.commit().await?),
        Err(HandleError::Unexpected(error)) => Err(error),
        Err(HandleError::Poisoned(why)) => Err(Unexpected::Broken(why)),
    }
}
