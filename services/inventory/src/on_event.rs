//! What an order's events say to whoever holds stock for it. What is done about it is in `apply`.

use std::sync::Arc;

use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use prost::Message;
use sqlx::PgConnection;
use tracing::Span;
use uuid::Uuid;

use crate::Service;
use crate::apply::{News, apply};
use crate::reservation::Heard;
use crate::stock::Line;

pub(crate) struct Orders(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl Handler for Orders {
    fn wants(&self, event_type: &str) -> bool {
        Event::of_type(event_type).is_some_and(|event| parse_news(&event).is_some())
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let news = due.iter().map(|due| Ok(News { span: due.span.clone(), ..read(due.record)? }));
        let news = news.collect::<Result<Vec<_>, HandleError>>()?;
        apply(&self.0, tx, &news).await
    }

    fn committed(&self) {
        self.0.published.wake();
    }
}

fn read(record: &Record) -> Result<News, HandleError> {
    let event = OrderEvent::decode(&*record.payload)?;
    let order_id = Uuid::parse_str(&event.order_id).map_err(|_| poisoned("its order_id is not a UUID"))?;
    let payload = event.event.ok_or_else(|| poisoned("it says nothing"))?;
    let heard = parse_news(&payload).ok_or_else(|| poisoned("its type is not what its headers say"))?;
    let lines = if let Event::OrderPlaced(placed) = payload { sum(placed.lines) } else { vec![] };
    let user_id = Uuid::parse_str(&event.user_id).ok();
    let (version, causation_id) = (record.version, Some(record.event_id));
    Ok(News { order_id, user_id, version, heard, lines, causation_id, span: Span::current() })
}

/// What it means for the order's reservation, if it means anything.
fn parse_news(event: &Event) -> Option<Heard> {
    match event {
        Event::OrderPlaced(_) => Some(Heard::Placed),
        Event::OrderConfirmed(_) => Some(Heard::Confirmed),
        Event::OrderPaymentFailed(_) | Event::OrderCancelled(_) | Event::OrderExpired(_) => Some(Heard::Ended),
        Event::OrderReserved(_)
        | Event::OrderPaid(_)
        | Event::OrderFulfilled(_)
        | Event::OrderRejected(_)
        | Event::OrderRefunded(_)
        | Event::OrderRefundFailed(_) => None,
    }
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
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
