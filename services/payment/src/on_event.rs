//! Consumes the events of orders: parses all, sets the goals of their payments, and reserves the refunds of their returns.

use chassis::Unexpected;
use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::order::v1::order_event::Event;
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::goal::{NewPayment, Wanted, set_goals};
use crate::ids::OrderId;
use crate::order_return::{self, Return};
use crate::service::Service;
use crate::state::Goal;

pub(crate) const TOPICS: &[&str] = &[Event::TOPIC];

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        Event::of_type(event_type)
            .is_some_and(|event| goal_of(&event).is_some() || matches!(event, Event::OrderItemsReturned(_)))
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let (mut wanted, mut returns) = (Vec::new(), Vec::new());
        for due in due {
            match parse(due.record)? {
                Parsed::Goal(goal) => wanted.push(goal),
                Parsed::Return(it) => returns.push(it),
            }
        }
        if !returns.is_empty() {
            lock_all(tx, &wanted, &returns).await?;
        }
        if !wanted.is_empty() {
            set_goals(tx, &self.clock, wanted).await?;
        }
        // After the goals: what is returned was captured, so its order was confirmed in an earlier set.
        for it in &returns {
            order_return::reserve(tx, &self.clock, it).await?;
        }
        Ok(())
    }

    fn committed(&self) {
        self.work.wake();
    }
}

/// Locks the payments of a set, in the order of order ids like [`set_goals`], which another task calls, too: otherwise those of
/// returns would be locked after those of goals, and two transactions could deadlock.
async fn lock_all(tx: &mut PgConnection, wanted: &[Wanted], returns: &[Return]) -> Result<(), Unexpected> {
    let orders = wanted.iter().map(|it| it.order_id.0).chain(returns.iter().map(|it| it.order_id.0));
    sqlx::query!(
        "select from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
           join payment on order_id = wanted.id
         order by order_id for no key update of payment",
        &orders.collect::<Vec<_>>(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The goal that an event sets for its order's payment, if it sets one.
fn goal_of(event: &Event) -> Option<Goal> {
    match event {
        Event::OrderReserved(_) => Some(Goal::Authorized),
        Event::OrderConfirmed(_) => Some(Goal::Captured),
        Event::OrderPaymentFailed(_) | Event::OrderCancelled(_) | Event::OrderExpired(_) => Some(Goal::Released),
        Event::OrderPlaced(_)
        | Event::OrderPaid(_)
        | Event::OrderPartlyFulfilled(_)
        | Event::OrderFulfilled(_)
        | Event::OrderItemsReturned(_)
        | Event::OrderRejected(_)
        | Event::OrderRefunded(_)
        | Event::OrderRefundFailed(_) => None,
    }
}

enum Parsed {
    Goal(Wanted),
    Return(Return),
}

fn parse(record: &Record) -> Result<Parsed, HandleError> {
    let order = OrderEvent::decode(&*record.payload)?;
    let order_id = OrderId::new(parse_id(&order.order_id, "order_id")?);
    let event = order.event.ok_or_else(|| poisoned("it has no payload"))?;
    if let Event::OrderItemsReturned(returned) = &event {
        let refund = returned.refund.clone().unwrap_or_default().checked();
        let refund = refund.map_err(|why| poisoned(&format!("its refund: {why}")))?;
        let (number, actor) = (returned.return_number, record.actor.clone());
        return Ok(Parsed::Return(Return { order_id, number, refund, actor }));
    }
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
    Ok(Parsed::Goal(Wanted { order_id, version: record.version, goal, cause: record.event_id, begins }))
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}

fn parse_id(text: &str, what: &str) -> Result<Uuid, HandleError> {
    Uuid::parse_str(text).map_err(|_| poisoned(&format!("its {what} is not a UUID")))
}
