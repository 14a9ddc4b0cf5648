//! What can happen to an order, and how it is recorded: in the event store, in the projection and in the outbox, in one
//! transaction.

use chassis::event::Record;
use chassis::event::outbox;
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event as Kind;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Service;
use crate::error::Error;
use crate::order::{Line, Order};

/// Something that happened to an order after it was placed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    Reserved,
    Rejected {
        reason: String,
        skus: Vec<String>,
    },
    Confirmed {
        payment_id: Uuid,
    },
    Paid {
        payment_id: Uuid,
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
        payment_id: Uuid,
        minor: i64,
    },
    /// What had gone back came back to us.
    RefundFailed {
        payment_id: Uuid,
        minor: i64,
        reason: String,
    },
}

/// Who or what made it happen.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) actor: String,
    /// The event that was heard, if one was.
    pub(crate) event_id: Option<Uuid>,
}

impl Cause {
    pub(crate) fn caller(caller: &chassis::Caller) -> Self {
        Self { actor: caller.actor(), event_id: None }
    }

    pub(crate) fn ourselves() -> Self {
        Self { actor: "service:order".to_owned(), event_id: None }
    }

    /// What a peer told us. Of what it did because somebody wanted it, that person is the actor here too.
    pub(crate) fn heard(record: &Record) -> Self {
        let is_service = record.actor.starts_with("service:");
        let actor = if is_service { "service:order" } else { &record.actor };
        Self { actor: actor.to_owned(), event_id: Some(record.event_id) }
    }
}

impl Fact {
    pub(crate) fn to_event(&self, order: &Order, lines: &[Line]) -> Kind {
        let lines = || lines.iter().map(|line| line.to_proto(&order.currency)).collect();
        match self.clone() {
            Self::Reserved => Kind::OrderReserved(OrderReserved { payment_method: order.payment_method.clone() }),
            Self::Rejected { reason, skus } => Kind::OrderRejected(OrderRejected { reason, skus }),
            Self::Confirmed { payment_id } => {
                Kind::OrderConfirmed(OrderConfirmed { lines: lines(), payment_id: payment_id.to_string() })
            }
            Self::Paid { payment_id } => Kind::OrderPaid(OrderPaid { payment_id: payment_id.to_string() }),
            Self::PaymentFailed { reason } => Kind::OrderPaymentFailed(OrderPaymentFailed { reason }),
            Self::Fulfilled { carrier, tracking_number } => {
                Kind::OrderFulfilled(OrderFulfilled { carrier, tracking_number })
            }
            Self::Cancelled { reason } => Kind::OrderCancelled(OrderCancelled { reason: reason.into() }),
            Self::Expired => Kind::OrderExpired(OrderExpired { reason: "DEADLINE_PASSED".to_owned() }),
            Self::Refunded { payment_id, minor } => Kind::OrderRefunded(OrderRefunded {
                payment_id: payment_id.to_string(),
                amount: Some(Money::new(order.currency.clone(), minor)),
            }),
            Self::RefundFailed { payment_id, minor, reason } => Kind::OrderRefundFailed(OrderRefundFailed {
                payment_id: payment_id.to_string(),
                amount: Some(Money::new(order.currency.clone(), minor)),
                reason,
            }),
        }
    }

    /// What a recorded event says. None: that the order was placed.
    pub(crate) fn from_event(event: Kind) -> Option<Self> {
        let id = |text: &str| Uuid::parse_str(text).unwrap_or_default();
        Some(match event {
            Kind::OrderPlaced(_) => return None,
            Kind::OrderReserved(_) => Self::Reserved,
            Kind::OrderRejected(it) => Self::Rejected { reason: it.reason, skus: it.skus },
            Kind::OrderConfirmed(it) => Self::Confirmed { payment_id: id(&it.payment_id) },
            Kind::OrderPaid(it) => Self::Paid { payment_id: id(&it.payment_id) },
            Kind::OrderPaymentFailed(it) => Self::PaymentFailed { reason: it.reason },
            Kind::OrderFulfilled(it) => Self::Fulfilled { carrier: it.carrier, tracking_number: it.tracking_number },
            Kind::OrderCancelled(it) => Self::Cancelled { reason: it.reason() },
            Kind::OrderExpired(_) => Self::Expired,
            Kind::OrderRefunded(it) => {
                Self::Refunded { payment_id: id(&it.payment_id), minor: it.amount.map_or(0, |amount| amount.minor) }
            }
            Kind::OrderRefundFailed(it) => Self::RefundFailed {
                payment_id: id(&it.payment_id),
                minor: it.amount.map_or(0, |amount| amount.minor),
                reason: it.reason,
            },
        })
    }
}

/// Records that an order was placed: it begins here.
pub(crate) async fn record_placed(
    service: &Service,
    db: &mut PgConnection,
    order: &Order,
    lines: &[Line],
    cause: &Cause,
) -> Result<(), Error> {
    order.insert(db, lines).await?;
    let placed = OrderPlaced {
        lines: lines.iter().map(|line| line.to_proto(&order.currency)).collect(),
        payment_method: order.payment_method.clone(),
        expire_time: Some(chassis::timestamp(order.expires_at)),
    };
    store(service, db, order, Kind::OrderPlaced(placed), cause, order.created_at).await
}

/// Records a fact about an order whose row is locked.
pub(crate) async fn record(
    service: &Service,
    db: &mut PgConnection,
    order: &mut Order,
    fact: Fact,
    cause: &Cause,
) -> Result<(), Error> {
    let now = service.clock.now();
    order.apply(&fact, now)?;
    order.save(db).await?;
    let lines = match fact {
        Fact::Confirmed { .. } => Order::lines(db, order.order_id).await?,
        _ => vec![],
    };
    let event = fact.to_event(order, &lines);
    store(service, db, order, event, cause, now).await
}

async fn store(
    service: &Service,
    db: &mut PgConnection,
    order: &Order,
    event: Kind,
    cause: &Cause,
    occurred_at: OffsetDateTime,
) -> Result<(), Error> {
    let event_type = event.event_type();
    let payload = OrderEvent {
        order_id: order.order_id.to_string(),
        user_id: order.user_id.to_string(),
        total: Some(order.total()),
        event: Some(event),
    };
    let event = outbox::Event {
        event_id: service.clock.new_id(),
        topic: Kind::TOPIC,
        key: order.order_id,
        version: order.version,
        event_type,
        payload: payload.encode_to_vec(),
        actor: cause.actor.clone(),
        causation_id: cause.event_id,
        occurred_at,
    };
    sqlx::query!(
        "insert into order_event (order_id, version, event_id, type, payload, actor, causation_id, occurred_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        event.key,
        event.version,
        event.event_id,
        event.event_type,
        event.payload,
        event.actor,
        event.causation_id,
        event.occurred_at,
    )
    .execute(&mut *db)
    .await?;
    outbox::append(db, &event).await?;
    Ok(())
}
