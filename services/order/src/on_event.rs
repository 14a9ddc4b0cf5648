//! Takes in what inventory and payment say: parse, lock the order, decide, record.
//!
//! Both speak of one order at the same time, such as that it is sold and that it is paid, on two topics. Events that share
//! a transaction therefore lock their orders first, by id: else two groups could wait for each other in a circle.

use std::sync::Arc;

use chassis::Owner;
use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::InventoryEvent;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::payment::v1::PaymentEvent;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgConnection;
use tracing::Instrument;
use uuid::Uuid;

use crate::Service;
use crate::error::Error;
use crate::event::{self, Cause};
use crate::order::Order;
use crate::saga::{Decision, Heard, decide};

pub(crate) struct Peers(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl Handler for Peers {
    fn wants(&self, event_type: &str) -> bool {
        // Everything that is known; what peers say one day besides is skipped.
        Stock::of_type(event_type).is_some() || Payment::of_type(event_type).is_some()
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        if due.len() > 1 {
            // One that cannot be read locks nothing; it fails when its turn comes.
            let orders = due.iter().filter_map(|due| parse(due.record).ok()).map(|(order_id, _)| order_id);
            Order::lock_all(tx, &orders.collect::<Vec<_>>()).await?;
        }
        for due in due {
            self.handle(tx, due.record).instrument(due.span.clone()).await?;
        }
        Ok(())
    }

    fn committed(&self) {
        self.0.published.wake();
    }
}

impl Peers {
    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        let (order_id, heard) = parse(record)?;
        let order = Order::lock(tx, order_id, Owner::Anybody).await.map_err(unexpected)?;
        let mut order = order.ok_or_else(|| poisoned(format!("there is no order {order_id}")))?;
        let heard = heard.by_order_of(order.total_minor);
        match decide(order.state, &heard) {
            Decision::Ignore => Ok(()),
            Decision::Impossible => {
                Err(poisoned(format!("an order that is {} cannot hear {heard:?}", order.state.name())))
            }
            Decision::Record(fact) => {
                let cause = Cause::heard(record);
                event::record(&self.0, tx, &mut order, fact, &cause).await.map_err(unexpected)
            }
        }
    }
}

fn poisoned(why: impl Into<String>) -> HandleError {
    HandleError::Poisoned(why.into())
}

fn unexpected(error: Error) -> HandleError {
    match error {
        Error::Chassis(chassis::Error::Unexpected(unexpected)) => unexpected.into(),
        refused => poisoned(refused.to_string()),
    }
}

fn parse_id(text: &str, what: &str) -> Result<Uuid, HandleError> {
    Uuid::parse_str(text).map_err(|_| poisoned(format!("its {what} is not a UUID")))
}

fn parse(record: &Record) -> Result<(Uuid, Heard), HandleError> {
    if Stock::of_type(&record.event_type).is_some() {
        parse_stock(InventoryEvent::decode(&*record.payload)?)
    } else {
        parse_payment(PaymentEvent::decode(&*record.payload)?)
    }
}

fn parse_stock(event: InventoryEvent) -> Result<(Uuid, Heard), HandleError> {
    let order_id = parse_id(&event.order_id, "order_id")?;
    let heard = match event.event.ok_or_else(|| poisoned("it says nothing"))? {
        Stock::StockReserved(_) => Heard::StockReserved,
        Stock::StockRejected(it) => {
            // What was short was short for everybody, whatever a cap says of the rest.
            let is_capped = !it.shortages.is_empty() && it.shortages.iter().all(|line| line.reason == "HOLD_CAP");
            let reason = if is_capped { "HOLD_CAP" } else { "STOCK_SHORT" }.to_owned();
            Heard::StockRejected { reason, skus: it.shortages.into_iter().map(|line| line.sku).collect() }
        }
        Stock::StockSold(_) => Heard::StockSold,
        Stock::StockReleased(_) | Stock::StockReturned(_) => Heard::StockReleased,
    };
    Ok((order_id, heard))
}

fn parse_payment(event: PaymentEvent) -> Result<(Uuid, Heard), HandleError> {
    let order_id = parse_id(&event.order_id, "order_id")?;
    let payment_id = parse_id(&event.payment_id, "payment_id")?;
    let heard = match event.event.ok_or_else(|| poisoned("it says nothing"))? {
        Payment::PaymentAuthorized(_) => Heard::PaymentAuthorized { payment_id },
        Payment::PaymentDeclined(it) => Heard::PaymentDeclined { reason: it.reason },
        Payment::PaymentCaptured(it) => Heard::PaymentCaptured { payment_id, minor: parse_minor(it.amount)? },
        Payment::PaymentCaptureFailed(it) => Heard::PaymentCaptureFailed { reason: it.reason },
        Payment::PaymentVoided(_) => Heard::PaymentVoided,
        Payment::PaymentRefunded(it) => Heard::PaymentRefunded { payment_id, minor: parse_minor(it.amount)? },
        Payment::PaymentRefundFailed(it) => {
            Heard::PaymentRefundFailed { payment_id, minor: parse_minor(it.amount)?, reason: it.reason }
        }
    };
    Ok((order_id, heard))
}

fn parse_minor(amount: Option<Money>) -> Result<i64, HandleError> {
    let amount = amount.unwrap_or_default().checked().map_err(|why| poisoned(format!("its amount: {why}")))?;
    Ok(amount.minor)
}
