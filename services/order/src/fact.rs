//! What can happen to an order, and the events that publish it.

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;

use crate::ids::PaymentId;
use crate::order::Order;
use crate::parcel::{Parcel, Returned};

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
    /// A part of it was handed to a carrier, and units are left.
    PartlyFulfilled(Parcel),
    /// What was left was handed to a carrier.
    Fulfilled(Parcel),
    /// Fulfilled units came back.
    ItemsReturned(Vec<Returned>),
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
    /// Whether lines and shipments change with it.
    pub(crate) fn moves_parcels(&self) -> bool {
        matches!(self, Self::PartlyFulfilled(_) | Self::Fulfilled(_) | Self::ItemsReturned(_))
    }

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
            Self::PartlyFulfilled(parcel) => Event::OrderPartlyFulfilled(OrderPartlyFulfilled {
                items: order.items_to_event(&parcel),
                shipment_number: order.shipments_count(),
                carrier: parcel.carrier,
                tracking_number: parcel.tracking_number,
            }),
            Self::Fulfilled(parcel) => Event::OrderFulfilled(OrderFulfilled {
                items: order.items_to_event(&parcel),
                shipment_number: order.shipments_count(),
                carrier: parcel.carrier,
                tracking_number: parcel.tracking_number,
            }),
            Self::ItemsReturned(items) => Event::OrderItemsReturned(OrderItemsReturned {
                return_number: order.returns,
                refund: Some(Money::new(order.currency.clone(), order.price_of(&items))),
                items: order.returned_to_event(&items),
            }),
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
            Event::OrderFulfilled(it) => Self::Fulfilled(Parcel::from_event(it.carrier, it.tracking_number, &it.items)),
            Event::OrderPartlyFulfilled(it) => {
                Self::PartlyFulfilled(Parcel::from_event(it.carrier, it.tracking_number, &it.items))
            }
            Event::OrderItemsReturned(it) => Self::ItemsReturned(it.items.iter().map(Returned::from_event).collect()),
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
