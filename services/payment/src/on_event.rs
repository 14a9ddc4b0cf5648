//! What an order's events want of its payment: a goal, and nothing more. No call is made here.

use std::sync::Arc;

use chassis::Unexpected;
use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::order::v1::order_event::Event as Kind;
use prost::Message;
use sqlx::PgConnection;
use tracing::Instrument;
use uuid::Uuid;

use crate::Service;

pub(crate) struct Orders(pub(crate) Arc<Service>);

#[tonic::async_trait]
impl Handler for Orders {
    fn wants(&self, event_type: &str) -> bool {
        Kind::of_type(event_type).is_some_and(|event| parse_goal(&event).is_some())
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        for due in due {
            self.handle(tx, due.record).instrument(due.span.clone()).await?;
        }
        Ok(())
    }

    fn committed(&self) {
        self.0.work.wake();
    }
}

/// What it wants of the order's payment, if it wants anything.
fn parse_goal(event: &Kind) -> Option<&'static str> {
    match event {
        Kind::OrderReserved(_) => Some("AUTHORIZED"),
        Kind::OrderConfirmed(_) => Some("CAPTURED"),
        Kind::OrderPaymentFailed(_) | Kind::OrderCancelled(_) | Kind::OrderExpired(_) => Some("RELEASED"),
        Kind::OrderPlaced(_)
        | Kind::OrderPaid(_)
        | Kind::OrderFulfilled(_)
        | Kind::OrderRejected(_)
        | Kind::OrderRefunded(_)
        | Kind::OrderRefundFailed(_) => None,
    }
}

impl Orders {
    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        let event = OrderEvent::decode(&*record.payload)?;
        let order_id = parse_id(&event.order_id, "order_id")?;
        match event.event {
            Some(Kind::OrderReserved(reserved)) => {
                let total = event.total.ok_or_else(|| poisoned("it has no total"))?;
                let user_id = parse_id(&event.user_id, "user_id")?;
                let now = self.0.clock.now();
                sqlx::query!(
                    "with begun as (
                       insert into payment
                         (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method,
                          captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, order_version,
                          cause_id, wanted_at, due_at, attempts, created_at, updated_at)
                       values ($1, $2, $3, 'AUTHORIZED', 'PENDING', $4, $5, $6, 0, 0, 0, '', 0, $9, $7, $8, $8, 0, $8, $8)
                       on conflict on constraint payment_order do nothing returning payment_id
                     )
                     insert into payment_history (payment_id, state, at) select payment_id, 'PENDING', $8 from begun",
                    self.0.clock.new_id(),
                    order_id,
                    user_id,
                    total.currency,
                    total.minor,
                    reserved.payment_method,
                    record.event_id,
                    now,
                    record.version,
                )
                .execute(tx)
                .await?;
                Ok(())
            }
            Some(event) => {
                let goal = parse_goal(&event).ok_or_else(|| poisoned("its type is not what its headers say"))?;
                let news = News { order_id, version: record.version, goal, cause: record.event_id };
                Ok(want(&self.0, tx, news).await?)
            }
            None => Err(poisoned("it says nothing")),
        }
    }
}

/// What an order wants of its payment, as of one of its versions.
pub(crate) struct News {
    pub(crate) order_id: Uuid,
    pub(crate) version: i64,
    pub(crate) goal: &'static str,
    /// The event that says so; none if the order service was asked.
    pub(crate) cause: Uuid,
}

/// Sets the goal of an order's payment, if it has one and this is news. What is released stays so.
pub(crate) async fn want(service: &Service, db: &mut PgConnection, news: News) -> Result<(), Unexpected> {
    sqlx::query!(
        "update payment set goal = $2, cause_id = $3, wanted_at = $4, due_at = $4, attempts = 0, order_version = $5
         where order_id = $1 and goal <> 'RELEASED' and goal <> $2 and order_version < $5",
        news.order_id,
        news.goal,
        news.cause,
        service.clock.now(),
        news.version,
    )
    .execute(db)
    .await?;
    Ok(())
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}

fn parse_id(text: &str, what: &str) -> Result<Uuid, HandleError> {
    Uuid::parse_str(text).map_err(|_| poisoned(&format!("its {what} is not a UUID")))
}
