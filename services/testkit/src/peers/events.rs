//! Events of services, as those who consume their topics read them. Topic and type are those of the contracts.

use std::sync::atomic::{AtomicI64, Ordering};

use chassis::event::Record;
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::{InventoryEvent, StockReserved};
use contracts::souk::order::v1::{OrderEvent, order_event};
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::payment::v1::{PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentEvent};
use contracts::souk::r#type::v1::Money;
use prost::Message;
use uuid::Uuid;

use crate::record;

/// Whose orders they are.
pub const CUSTOMER: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0002);

/// An event of an order over 25.00 EUR of [`CUSTOMER`].
pub fn order_event(order_id: Uuid, version: i64, event: order_event::Event) -> Record {
    let (event_type, user_id, total) = (event.event_type(), CUSTOMER.to_string(), Some(Money::new("EUR", 2_500)));
    let event = OrderEvent { order_id: order_id.to_string(), user_id, total, event: Some(event) };
    record(event_type, order_id, version, event.encode_to_vec())
}

/// An event of an order's stock, with a version above all before it.
pub fn inventory_event(order_id: Uuid, event: Stock) -> Record {
    let event_type = event.event_type();
    let event = InventoryEvent { order_id: order_id.to_string(), event: Some(event) };
    record(event_type, order_id, next_version(), event.encode_to_vec())
}

/// An event of an order's payment, with a version above all before it.
pub fn payment_event(order_id: Uuid, event: Payment) -> Record {
    let (event_type, payment_id) = (event.event_type(), Uuid::from_u128(order_id.as_u128() ^ 0xff));
    let (payment, order_id) = (payment_id.to_string(), order_id.to_string());
    let event = PaymentEvent { payment_id: payment, order_id, event: Some(event) };
    record(event_type, payment_id, next_version(), event.encode_to_vec())
}

fn next_version() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

pub fn stock_reserved(order_id: Uuid) -> Record {
    inventory_event(order_id, Stock::StockReserved(StockReserved {}))
}

pub fn authorized(order_id: Uuid) -> Record {
    payment_event(order_id, Payment::PaymentAuthorized(PaymentAuthorized { amount: Some(Money::new("EUR", 2_500)) }))
}

pub fn captured(order_id: Uuid, minor: i64) -> Record {
    payment_event(order_id, Payment::PaymentCaptured(PaymentCaptured { amount: Some(Money::new("EUR", minor)) }))
}

pub fn declined(order_id: Uuid) -> Record {
    payment_event(order_id, Payment::PaymentDeclined(PaymentDeclined { reason: "CARD_DECLINED".to_owned() }))
}
