//! Consumes the events of orders: parses all, and applies them as one set.

use chassis::event::{Due, HandleError, Handler};
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use prost::Message;
use sqlx::PgConnection;

use crate::apply::{OrderUpdate, apply};
use crate::ids::{OrderId, UserId};
use crate::reservation::OrderPhase;
use crate::service::Service;
use crate::stock::Line;
use crate::take_back::{CustomerReturn, ReturnedUnits};

pub(crate) const TOPICS: &[&str] = &[Event::TOPIC];

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        Event::of_type(event_type).is_some_and(|event| phase_of(&event).is_some())
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let updates = due.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        apply(self, tx, &updates).await
    }

    fn committed(&self) {
        self.published.wake();
    }
}

/// What an event says of its order, as far as it matters to the reservation.
fn phase_of(event: &Event) -> Option<OrderPhase> {
    match event {
        Event::OrderPlaced(_) => Some(OrderPhase::Placed),
        Event::OrderConfirmed(_) => Some(OrderPhase::Confirmed),
        Event::OrderPaymentFailed(_) | Event::OrderCancelled(_) | Event::OrderExpired(_) => Some(OrderPhase::Ended),
        Event::OrderItemsReturned(_) => Some(OrderPhase::ItemsReturned),
        Event::OrderReserved(_)
        | Event::OrderPaid(_)
        | Event::OrderPartlyFulfilled(_)
        | Event::OrderFulfilled(_)
        | Event::OrderRejected(_)
        | Event::OrderRefunded(_)
        | Event::OrderRefundFailed(_) => None,
    }
}

fn parse(due: &Due<'_>) -> Result<OrderUpdate, HandleError> {
    let poisoned = |why: &str| HandleError::Poisoned(why.to_owned());
    let event = OrderEvent::decode(&*due.record.payload)?;
    let order_id = OrderId::parse(&event.order_id).ok_or_else(|| poisoned("its order_id is not a UUID"))?;
    let payload = event.event.ok_or_else(|| poisoned("it has no payload"))?;
    let phase = phase_of(&payload).ok_or_else(|| poisoned("its type is not the one in its headers"))?;
    let (mut lines, mut returned) = (vec![], None);
    match payload {
        Event::OrderPlaced(placed) => lines = sum(placed.lines),
        Event::OrderItemsReturned(event) => {
            let items = event.items.into_iter().map(ReturnedUnits::parse).collect::<Option<_>>();
            let items = items.ok_or_else(|| poisoned("an item has no quantity or disposition"))?;
            returned = Some(CustomerReturn { actor: due.record.actor.clone(), items });
        }
        _ => {}
    }
    Ok(OrderUpdate {
        order_id,
        user_id: UserId::parse(&event.user_id),
        version: due.record.version,
        phase,
        lines,
        returned,
        event_id: Some(due.record.event_id),
        span: due.span.clone(),
    })
}

/// One line for each SKU.
fn sum(lines: Vec<OrderLine>) -> Vec<Line> {
    let mut sums: Vec<Line> = lines.into_iter().map(|line| Line { sku: line.sku, quantity: line.quantity }).collect();
    sums.sort();
    sums.dedup_by(|next, first| {
        let same = next.sku == first.sku;
        if same {
            first.quantity = first.quantity.saturating_add(next.quantity);
        }
        same
    });
    sums
}
