//! Consumes the events of orders: parses all, and sets the goals of their payments.

use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::order::v1::order_event::Event;
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::goal::{NewPayment, Wanted, set_goals};
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::Goal;

pub(crate) const TOPICS: &[&str] = &[Event::TOPIC];

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        Event::of_type(event_type).is_some_and(|event| goal_of(&event).is_some())
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let wanted = due.iter().map(|due| parse(due.record)).collect::<Result<_, _>>()?;
        Ok(set_goals(tx, &self.clock, wanted).await?)
    }

    fn committed(&self) {
        self.work.wake();
    }
}

/// The goal that an event sets for its order's payment, if it sets one.
fn goal_of(event: &Event) -> Option<Goal> {
    match event {
        Event::OrderReserved(_) => Some(Goal::Authorized),
        Event::OrderConfirmed(_) => Some(Goal::Captured),
        Event::OrderPaymentFailed(_) | Event::OrderCancelled(_) | Event::OrderExpired(_) => Some(Goal::Released),
        Event::OrderPlaced(_)
        | Event::OrderPaid(_)
        | Event::OrderFulfilled(_)
        | Event::OrderRejected(_)
        | Event::OrderRefunded(_)
        | Event::OrderRefundFailed(_) => None,
    }
}

fn parse(record: &Record) -> Result<Wanted, HandleError> {
    let order = OrderEvent::decode(&*record.payload)?;
    let order_id = OrderId::new(parse_id(&order.order_id, "order_id")?);
    let event = order.event.ok_or_else(|| poisoned("it has no payload"))?;
    let goal = goal_of(&event).ok_or_else(|| poisoned("its type is not the one in its headers"))?;
    let begins = match event {
        Event::OrderReserved(reserved) => {
            let total = order.total.ok_or_else(|| poisoned("it has no total"))?;
            let user_id = parse_id(&order.user_id, "user_id")?;
            let (currency, minor, payment_method) = (total.currency, total.minor, reserved.payment_method);
            Some(NewPayment { user_id, currency, minor, payment_method })
        }
        _ => None,
    };
    Ok(Wanted { order_id, version: record.version, goal, cause: record.event_id, begins })
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}

fn parse_id(text: &str, what: &str) -> Result<Uuid, HandleError> {
    Uuid::parse_str(text).map_err(|_| poisoned(&format!("its {what} is not a UUID")))
}
