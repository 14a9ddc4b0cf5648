//! What can happen to an order, and the events that publish it.

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;

use crate::ids::PaymentId;
use crate::order::Order;

/// Something that happened to an order after it was placed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    Reserved,
    Rejected {
        reason: String,
        skus: Vec<String>,
    },
    Confirmed {
        payment_id: PaymentId,
    },
    Paid {
        payment_id: PaymentId,
    },
    PaymentFailed {
        reason: String,
    },
    Fulfilled {
        carrier: String,
        tracking_number: String,
    },
    Cancelled {
        reason: CancelReason,
    },
    Expired,
    Refunded {
        payment_id: PaymentId,
        minor: i64,
    },
    /// A refund that was done has failed: the amount is back with us.
    RefundFailed {
        payment_id: PaymentId,
        minor: i64,
        reason: String,
    },
}

impl Fact {
    pub(crate) fn to_event(&self, order: &Order) -> Event {
        match self.clone() {
            Self::Reserved => Event::OrderReserved(OrderReserved { payment_method: order.payment_method.clone() }),
            Self::Rejected { reason, skus } => Event::OrderRejected(OrderRejected { reason, skus }),
            Self::Confirmed { payment_id } => Event::OrderConfirmed(OrderConfirmed {
                lines: order.lines_to_proto(),
                payment_id: payment_id.to_string(),
            }),
            Self::Paid { payment_id } => Event::OrderPaid(OrderPaid { payment_id: payment_id.to_string() }),
            Self::PaymentFailed { reason } => Event::OrderPaymentFailed(OrderPaymentFailed { reason }),
            Self::Fulfilled { carrier, tracking_number } => {
                Event::OrderFulfilled(OrderFulfilled { carrier, tracking_number })
            }
            Self::Cancelled { reason } => Event::OrderCancelled(OrderCancelled { reason: reason.into() }),
            Self::Expired => Event::OrderExpired(OrderExpired { reason: "DEADLINE_PASSED".to_owned() }),
            Self::Refunded { payment_id, minor } => Event::OrderRefunded(OrderRefunded {
                payment_id: payment_id.to_string(),
                amount: Some(Money::new(order.currency.clone(), minor)),
            }),
            Self::RefundFailed { payment_id, minor, reason } => Event::OrderRefundFailed(OrderRefundFailed {
                payment_id: payment_id.to_string(),
                amount: Some(Money::new(order.currency.clone(), minor)),
                reason,
            }),
        }
    }

    /// The fact in an event that was recorded; none in the first, that the order was placed.
    pub(crate) fn from_event(event: Event) -> Option<Self> {
        let id = |text: &str| PaymentId::parse(text).unwrap_or_default();
        Some(match event {
            Event::OrderPlaced(_) => return None,
            Event::OrderReserved(_) => Self::Reserved,
            Event::OrderRejected(it) => Self::Rejected { reason: it.reason, skus: it.skus },
            Event::OrderConfirmed(it) => Self::Confirmed { payment_id: id(&it.payment_id) },
            Event::OrderPaid(it) => Self::Paid { payment_id: id(&it.payment_id) },
            Event::OrderPaymentFailed(it) => Self::PaymentFailed { reason: it.reason },
            Event::OrderFulfilled(it) => Self::Fulfilled { carrier: it.carrier, tracking_number: it.tracking_number },
            Event::OrderCancelled(it) => Self::Cancelled { reason: it.reason() },
            Event::OrderExpired(_) => Self::Expired,
            Event::OrderRefunded(it) => {
                Self::Refunded { payment_id: id(&it.payment_id), minor: it.amount.map_or(0, |amount| amount.minor) }
            }
            Event::OrderRefundFailed(it) => Self::RefundFailed {
                payment_id: id(&it.payment_id),
                minor: it.amount.map_or(0, |amount| amount.minor),
                reason: it.reason,
            },
        })
    }
}
