//! The orders and their events.

use anyhow::{Result, ensure};
use contracts::event::Event as _;
use contracts::souk::inventory::v1::{InventoryEvent, StockReserved, StockReturned, StockSold, inventory_event};
use contracts::souk::order::v1::order_event::Event as Payload;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::{PaymentAuthorized, PaymentCaptured, PaymentEvent, PaymentRefunded, payment_event};
use contracts::souk::r#type::v1::Money;
use prost::Message;
use prost_types::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use provider::Seed;

/// The time between two orders, and between two events of an order.
pub(super) const MILLIS: u64 = 10;
/// The age of the newest order, in seconds.
const AGO: i64 = 300;
pub(super) const PRICE: i64 = 1_250;
pub(super) const SKUS: u64 = 1_000;
/// One order in this many was cancelled.
pub(super) const CANCELLED: u64 = 20;

/// Placeholders for the ids of an order and its payment, of the same length.
const ORDER: Uuid = Uuid::from_u128(1);
const PAYMENT: Uuid = Uuid::from_u128(2);
pub(super) const USER: Uuid = Uuid::from_u128(3);
pub(super) const PRODUCT: Uuid = Uuid::from_u128(4);

pub(super) struct Story {
    pub(super) count: u64,
    /// The time of the first order, in Unix milliseconds.
    pub(super) begin: u64,
    /// In Unix seconds.
    pub(super) expires_at: i64,
    pub(super) order_events: Vec<Event>,
    pub(super) inventory_events: Vec<Event>,
    pub(super) payment_events: Vec<Event>,
}

/// An event of every order, or only of those that were cancelled.
pub(super) struct Event {
    pub(super) event_type: &'static str,
    pub(super) payload: Template,
    pub(super) of_cancelled: bool,
}

/// An encoded message, split at its ids.
pub(super) struct Template(Vec<Part>);

pub(super) enum Part {
    Bytes(Vec<u8>),
    OrderId,
    PaymentId,
}

#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) number: u64,
    pub(super) at: u64,
}

impl Story {
    pub(super) fn of(count: u64) -> Result<Self> {
        ensure!((1..=100_000_000).contains(&count), "--orders is not 1 to 100,000,000: {count}");
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let begin = (now - AGO).unsigned_abs() * 1_000 - count * MILLIS;
        let expires_at = now + 900;
        Ok(Self {
            count,
            begin,
            expires_at,
            order_events: order_events(expires_at),
            inventory_events: inventory_events(),
            payment_events: payment_events(),
        })
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = Order> {
        (1..=self.count).map(|number| Order { number, at: self.begin + number * MILLIS })
    }

    /// The response of CreateOrder.
    pub(super) fn response(&self) -> Template {
        let order = contracts::souk::order::v1::Order {
            order_id: ORDER.to_string(),
            user_id: USER.to_string(),
            state: OrderState::Pending.into(),
            items: lines(),
            total: Some(Money::new("EUR", PRICE)),
            version: 1,
            expire_time: Some(Timestamp { seconds: self.expires_at, nanos: 0 }),
            ..Default::default()
        };
        Template::of(&CreateOrderResponse { order: Some(order) })
    }
}

impl Order {
    pub(super) fn is_cancelled(self) -> bool {
        self.number.is_multiple_of(CANCELLED)
    }

    pub(super) fn order_id(self) -> Uuid {
        self.id(8)
    }

    pub(super) fn payment_id(self) -> Uuid {
        self.id(9)
    }

    /// The same as `made_id` in the databases.
    fn id(self, kind: u128) -> Uuid {
        Uuid::from_u128(u128::from(self.at) << 80 | 0x7000 << 64 | kind << 60 | u128::from(self.number))
    }

    pub(super) fn at_provider(self) -> Seed {
        Seed {
            intent_id: self.order_id(),
            refund_id: self.is_cancelled().then(|| self.payment_id()),
            created: self.at + 1_000,
            amount: PRICE.unsigned_abs(),
            metadata: [("payment_id", self.payment_id()), ("order_id", self.order_id())]
                .map(|(name, id)| (name.to_owned(), id.to_string()))
                .to_vec(),
        }
    }
}

impl Template {
    fn of(message: &impl Message) -> Self {
        let (bytes, order, payment) = (message.encode_to_vec(), ORDER.to_string(), PAYMENT.to_string());
        let (mut parts, mut rest) = (Vec::new(), &*bytes);
        while let Some(at) = rest.windows(order.len()).position(|it| it == order.as_bytes() || it == payment.as_bytes())
        {
            parts.push(Part::Bytes(rest[..at].to_vec()));
            let id = &rest[at..at + order.len()];
            parts.push(if id == order.as_bytes() { Part::OrderId } else { Part::PaymentId });
            rest = &rest[at + order.len()..];
        }
        parts.push(Part::Bytes(rest.to_vec()));
        Self(parts)
    }

    pub(super) fn fill(&self, order: Order) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Bytes(some) => bytes.extend_from_slice(some),
                Part::OrderId => bytes.extend(order.order_id().to_string().bytes()),
                Part::PaymentId => bytes.extend(order.payment_id().to_string().bytes()),
            }
        }
        bytes
    }

    /// An SQL expression for the message, with the columns `order_id` and `payment_id`.
    pub(super) fn to_sql(&self) -> String {
        let part = |part: &Part| match part {
            Part::Bytes(some) => {
                format!(r"'\x{}'::bytea", hex::encode(some))
            }
            Part::OrderId => "convert_to(order_id::text, 'UTF8')".to_owned(),
            Part::PaymentId => "convert_to(payment_id::text, 'UTF8')".to_owned(),
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(" || ")
    }
}

fn lines() -> Vec<OrderLine> {
    vec![OrderLine {
        product_id: PRODUCT.to_string(),
        quantity: 1,
        sku: "SKU".to_owned(),
        title: "A thing".to_owned(),
        unit_price: Some(Money::new("EUR", PRICE)),
        ..OrderLine::default()
    }]
}

fn order_events(expires_at: i64) -> Vec<Event> {
    let event = |event: Payload, of_cancelled| Event {
        event_type: event.event_type(),
        payload: Template::of(&OrderEvent {
            order_id: ORDER.to_string(),
            user_id: USER.to_string(),
            total: Some(Money::new("EUR", PRICE)),
            event: Some(event),
        }),
        of_cancelled,
    };
    let (payment_method, payment_id) = ("pm_card_visa".to_owned(), PAYMENT.to_string());
    let amount = Some(Money::new("EUR", PRICE));
    let placed = OrderPlaced {
        lines: lines(),
        payment_method: payment_method.clone(),
        expire_time: Some(Timestamp { seconds: expires_at, nanos: 0 }),
    };
    let confirmed = OrderConfirmed { lines: lines(), payment_id: payment_id.clone() };
    let cancelled = OrderCancelled { reason: CancelReason::CustomerRequest.into() };
    vec![
        event(Payload::OrderPlaced(placed), false),
        event(Payload::OrderReserved(OrderReserved { payment_method }), false),
        event(Payload::OrderConfirmed(confirmed), false),
        event(Payload::OrderPaid(OrderPaid { payment_id: payment_id.clone() }), false),
        event(Payload::OrderCancelled(cancelled), true),
        event(Payload::OrderRefunded(OrderRefunded { payment_id, amount }), true),
    ]
}

fn inventory_events() -> Vec<Event> {
    use inventory_event::Event as Payload;
    let event = |event: Payload, of_cancelled| Event {
        event_type: event.event_type(),
        payload: Template::of(&InventoryEvent { order_id: ORDER.to_string(), event: Some(event) }),
        of_cancelled,
    };
    vec![
        event(Payload::StockReserved(StockReserved {}), false),
        event(Payload::StockSold(StockSold {}), false),
        event(Payload::StockReturned(StockReturned {}), true),
    ]
}

fn payment_events() -> Vec<Event> {
    use payment_event::Event as Payload;
    let event = |event: Payload, of_cancelled| Event {
        event_type: event.event_type(),
        payload: Template::of(&PaymentEvent {
            payment_id: PAYMENT.to_string(),
            order_id: ORDER.to_string(),
            event: Some(event),
        }),
        of_cancelled,
    };
    let amount = || Some(Money::new("EUR", PRICE));
    let refunded = PaymentRefunded { amount: amount(), refund_id: PAYMENT.to_string() };
    vec![
        event(Payload::PaymentAuthorized(PaymentAuthorized { amount: amount() }), false),
        event(Payload::PaymentCaptured(PaymentCaptured { amount: amount() }), false),
        event(Payload::PaymentRefunded(refunded), true),
    ]
}
