//! What an order's events say to whoever holds stock for it. What is done about it is in `apply`.

use std::sync::Arc;

use chassis::event::{Due, HandleError, Handler, Record};
use contracts::souk::order::v1::order_event::Event as OrderKind;
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

const WANTED: [&str; 5] = [
    "souk.order.v1.OrderPlaced",
    "souk.order.v1.OrderConfirmed",
    "souk.order.v1.OrderPaymentFailed",
    "souk.order.v1.OrderCancelled",
    "souk.order.v1.OrderExpired",
];

#[tonic::async_trait]
impl Handler for Orders {
    fn wants(&self, kind: &str) -> bool {
        WANTED.contains(&kind)
    }

    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        apply(&self.0, tx, &[read(record)?]).await
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
    let (heard, lines) = match event.event.ok_or_else(|| poisoned("it says nothing"))? {
        OrderKind::OrderPlaced(placed) => (Heard::Placed, sum(placed.lines)),
        OrderKind::OrderConfirmed(_) => (Heard::Confirmed, vec![]),
        OrderKind::OrderPaymentFailed(_) | OrderKind::OrderCancelled(_) | OrderKind::OrderExpired(_) => {
            (Heard::Ended, vec![])
        }
        _ => return Err(poisoned("its type is not what its headers say")),
    };
    let user_id = Uuid::parse_str(&event.user_id).ok();
    let (version, causation_id) = (record.version, Some(record.event_id));
    Ok(News { order_id, user_id, version, heard, lines, causation_id, span: Span::current() })
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
