//! Consumes the events of inventory and payment: parse all, lock their orders, decide one by one, record all. And of accounts:
//! that one was erased.
//!
//! Several events may be about one order: each is decided on what the one before it made of the order.

use std::collections::HashMap;

use chassis::Owner;
use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::InventoryEvent;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::payment::v1::PaymentEvent;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::r#type::v1::Money;
use contracts::souk::user::v1::UserEvent;
use contracts::souk::user::v1::user_event::Event as User;
use prost::Message;
use sqlx::PgConnection;

use crate::erase;
use crate::ids::{OrderId, PaymentId, UserId};
use crate::order::Order;
use crate::record::{Cause, Changes};
use crate::saga::{Decision, PeerEvent, decide};
use crate::service::Service;

pub(crate) const TOPICS: &[&str] = &[Stock::TOPIC, Payment::TOPIC, User::TOPIC];

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        // All event types of this version of the contracts that are about an order; later ones are skipped.
        Stock::of_type(event_type).is_some_and(|event| !matches!(event, Stock::StockLow(_)))
            || Payment::of_type(event_type).is_some()
            || matches!(User::of_type(event_type), Some(User::UserErased(_)))
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let (users, due): (Vec<_>, Vec<_>) = due.iter().partition(|due| due.record.topic == User::TOPIC);
        let mut erased = users.iter().map(|due| parse_user(due.record)).collect::<Result<Vec<_>, _>>()?;
        erased.sort_unstable();
        erase::record(self, tx, &erased).await?;
        let parsed = due.iter().map(|due| parse(due.record)).collect::<Result<Vec<_>, _>>()?;
        let mut order_ids: Vec<_> = parsed.iter().map(|(order_id, _)| *order_id).collect();
        order_ids.sort_unstable();
        order_ids.dedup();
        let orders = Order::lock_all(tx, &order_ids, Owner::Anybody).await?;
        let mut orders: HashMap<_, _> = orders.into_iter().map(|order| (order.order_id, order)).collect();
        let mut changes = Changes::new(self);
        for (due, (order_id, event)) in due.iter().zip(parsed) {
            let _span = due.span.enter();
            let order = orders.get_mut(&order_id).ok_or_else(|| poisoned(format!("there is no order {order_id}")))?;
            let event = event.for_total(order.total_minor);
            match decide(order.state, &event) {
                Decision::Ignore => {}
                Decision::Contradiction => {
                    return Err(poisoned(format!(
                        "{event:?} is not possible for an order that is {}",
                        order.state.name()
                    )));
                }
                Decision::Record(fact) => {
                    let recorded = changes.record(order, &fact, Cause::event(due.record));
                    recorded.map_err(|illegal| poisoned(illegal.to_string()))?;
                    // A constraint of the table checks this only after all events of the set; here it is checked after each.
                    if !(0..=order.total_minor).contains(&order.refunded_minor) {
                        let (refunded, total) = (order.refunded_minor, order.total_minor);
                        return Err(poisoned(format!("{refunded} of {total} minor units cannot be refunded")));
                    }
                }
            }
        }
        Ok(changes.save(tx).await?)
    }

    fn committed(&self) {
        self.published.wake();
    }
}

fn poisoned(why: impl Into<String>) -> HandleError {
    HandleError::Poisoned(why.into())
}

fn parse_user(record: &Record) -> Result<UserId, HandleError> {
    let event = UserEvent::decode(&*record.payload)?;
    UserId::parse(&event.user_id).ok_or_else(|| poisoned("its user_id is not a UUID"))
}

fn parse(record: &Record) -> Result<(OrderId, PeerEvent), HandleError> {
    if Stock::of_type(&record.event_type).is_some() {
        parse_stock(InventoryEvent::decode(&*record.payload)?)
    } else {
        parse_payment(PaymentEvent::decode(&*record.payload)?)
    }
}

fn parse_stock(event: InventoryEvent) -> Result<(OrderId, PeerEvent), HandleError> {
    let order_id = OrderId::parse(&event.order_id).ok_or_else(|| poisoned("its order_id is not a UUID"))?;
    let event = match event.event.ok_or_else(|| poisoned("it has no payload"))? {
        Stock::StockReserved(_) => PeerEvent::StockReserved,
        Stock::StockRejected(it) => {
            // A cap is the reason only if nothing else was: one real shortage makes it a shortage.
            let is_capped = !it.shortages.is_empty() && it.shortages.iter().all(|line| line.reason == "HOLD_CAP");
            let reason = if is_capped { "HOLD_CAP" } else { "STOCK_SHORT" }.to_owned();
            PeerEvent::StockRejected { reason, skus: it.shortages.into_iter().map(|line| line.sku).collect() }
        }
        Stock::StockSold(_) => PeerEvent::StockSold,
        Stock::StockReleased(_) | Stock::StockReturned(_) => PeerEvent::StockReleased,
        Stock::StockLow(_) => return Err(poisoned("its type is not the one in its headers")),
    };
    Ok((order_id, event))
}

fn parse_payment(event: PaymentEvent) -> Result<(OrderId, PeerEvent), HandleError> {
    let order_id = OrderId::parse(&event.order_id).ok_or_else(|| poisoned("its order_id is not a UUID"))?;
    let payment_id = PaymentId::parse(&event.payment_id).ok_or_else(|| poisoned("its payment_id is not a UUID"))?;
    let event = match event.event.ok_or_else(|| poisoned("it has no payload"))? {
        Payment::PaymentAuthorized(_) => PeerEvent::PaymentAuthorized { payment_id },
        Payment::PaymentDeclined(it) => PeerEvent::PaymentDeclined { reason: it.reason },
        Payment::PaymentCaptured(it) => PeerEvent::PaymentCaptured { payment_id, minor: parse_minor(it.amount)? },
        Payment::PaymentCaptureFailed(it) => PeerEvent::PaymentCaptureFailed { reason: it.reason },
        Payment::PaymentVoided(_) => PeerEvent::PaymentVoided,
        Payment::PaymentRefunded(it) => PeerEvent::PaymentRefunded { payment_id, minor: parse_minor(it.amount)? },
        Payment::PaymentRefundFailed(it) => {
            PeerEvent::PaymentRefundFailed { payment_id, minor: parse_minor(it.amount)?, reason: it.reason }
        }
    };
    Ok((order_id, event))
}

fn parse_minor(amount: Option<Money>) -> Result<i64, HandleError> {
    let amount = amount.unwrap_or_default().checked().map_err(|why| poisoned(format!("its amount: {why}")))?;
    Ok(amount.minor)
}
