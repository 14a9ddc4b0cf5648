//! What an event says of its order, as far as it counts.

use chassis::event::{HandleError, Record};
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{CancelReason, OrderEvent, OrderLine};
use contracts::souk::r#type::v1::Money;
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

/// The longest reason that is counted under its own name.
const MAX_REASON: usize = 64;
/// Under which all other reasons are counted.
pub(crate) const OTHER: &str = "OTHER";

/// One event.
pub(crate) struct Fact {
    pub(crate) order_id: Uuid,
    pub(crate) version: i64,
    /// When it happened.
    pub(crate) at: OffsetDateTime,
    /// The order's total.
    pub(crate) total: Money,
    pub(crate) what: What,
}

pub(crate) enum What {
    Placed { lines: Vec<OrderLine> },
    Reserved,
    Confirmed,
    Paid,
    Fulfilled,
    Ended { exit: Stage, reason: String },
    Refunded(Money),
    RefundFailed(Money),
}

/// Where an order is counted in the funnel, at most once each. The numbers are bits of `counted_order.stages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub(crate) enum Stage {
    Placed = 1,
    Reserved = 2,
    Confirmed = 4,
    Paid = 8,
    Fulfilled = 16,
    Rejected = 32,
    PaymentFailed = 64,
    Cancelled = 128,
    Expired = 256,
}

impl Stage {
    pub(crate) const ALL: [Self; 9] = [
        Self::Placed,
        Self::Reserved,
        Self::Confirmed,
        Self::Paid,
        Self::Fulfilled,
        Self::Rejected,
        Self::PaymentFailed,
        Self::Cancelled,
        Self::Expired,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Paid => "PAID",
            Self::Fulfilled => "FULFILLED",
            Self::Rejected => "REJECTED",
            Self::PaymentFailed => "PAYMENT_FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// Whether events of this type count.
pub(crate) fn counts(event: Event) -> bool {
    !matches!(what(event), Ok(None))
}

pub(crate) fn parse(record: &Record) -> Result<Fact, HandleError> {
    let event = OrderEvent::decode(&*record.payload)?;
    let payload = event.event.ok_or_else(|| poisoned("it has no payload"))?;
    Ok(Fact {
        order_id: record.key,
        version: record.version,
        at: record.occurred_at,
        total: event.total.ok_or_else(|| poisoned("it has no total"))?,
        what: what(payload)?.ok_or_else(|| poisoned("its type is not the one in its headers"))?,
    })
}

/// None if events of this type do not count, whatever they have.
fn what(event: Event) -> Result<Option<What>, HandleError> {
    let no_amount = || poisoned("it has no amount");
    let ended = |exit, reason: &str| What::Ended { exit, reason: bound(reason) };
    Ok(Some(match event {
        Event::OrderPlaced(placed) => What::Placed { lines: placed.lines },
        Event::OrderReserved(_) => What::Reserved,
        Event::OrderConfirmed(_) => What::Confirmed,
        Event::OrderPaid(_) => What::Paid,
        Event::OrderFulfilled(_) => What::Fulfilled,
        Event::OrderRejected(it) => ended(Stage::Rejected, &it.reason),
        Event::OrderPaymentFailed(it) => ended(Stage::PaymentFailed, &it.reason),
        Event::OrderCancelled(it) => {
            ended(Stage::Cancelled, CancelReason::try_from(it.reason).map_or(OTHER, |it| it.as_str_name()))
        }
        Event::OrderExpired(it) => ended(Stage::Expired, &it.reason),
        Event::OrderRefunded(it) => What::Refunded(it.amount.ok_or_else(no_amount)?),
        Event::OrderRefundFailed(it) => What::RefundFailed(it.amount.ok_or_else(no_amount)?),
        Event::OrderPartlyFulfilled(_) | Event::OrderItemsReturned(_) => return Ok(None),
    }))
}

/// Reasons are names. Whatever else an event has there must not fill the table.
fn bound(reason: &str) -> String {
    let is_name = |it: &str| it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if reason.len() <= MAX_REASON && is_name(reason) { reason.to_owned() } else { OTHER.to_owned() }
}

pub(crate) fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}
