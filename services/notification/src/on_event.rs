//! Consumes the events of orders, and requests of the user service for mails: each becomes a notification.

use std::time::Duration;

use chassis::event::{Due, HandleError, Handler, Record};
use contracts::event::Event as _;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::order::v1::order_event::Event as Order;
use contracts::souk::user::v1::user_event::Event as User;
use contracts::souk::user::v1::{MailPurpose, UserEvent};
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::UserId;
use crate::kind::{Channel, Kind};
use crate::notification::{New, insert};
use crate::preferences;
use crate::service::Service;

pub(crate) const TOPICS: &[&str] = &[Order::TOPIC, User::TOPIC];
/// Nobody notices that a message is this much later, and the orders of that time share transactions.
const GATHERS_FOR: Duration = Duration::from_millis(250);

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        Order::of_type(event_type).is_some_and(|event| kind_of(&event).is_some())
            || User::of_type(event_type).is_some_and(|event| is_handled(&event))
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let (erased, due): (Vec<_>, Vec<_>) = due.iter().partition(|due| is_erasure(due.record));
        let erased: Vec<_> = erased.into_iter().map(|due| UserId::new(due.record.key)).collect();
        let now = self.clock.now();
        preferences::erase(tx, &erased, now).await?;
        let parsed = due.iter().map(|due| parse(self, due.record)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(insert(tx, now, now - self.give_up_after, parsed).await?)
    }

    fn gathers_for(&self) -> Duration {
        GATHERS_FOR
    }

    fn committed(&self) {
        self.emails.wake();
        self.text_messages.wake();
    }
}

/// All events of accounts so far. A new one does not compile before it is listed here or excluded.
fn is_handled(event: &User) -> bool {
    match event {
        User::UserErased(_) | User::MailRequested(_) => true,
    }
}

/// An erased user is the key of the event.
fn is_erasure(record: &Record) -> bool {
    matches!(User::of_type(&record.event_type), Some(User::UserErased(_)))
}

/// The outcome of an order that its customer is told of.
fn kind_of(event: &Order) -> Option<Kind> {
    match event {
        Order::OrderConfirmed(_) => Some(Kind::OrderConfirmed),
        Order::OrderFulfilled(_) => Some(Kind::OrderFulfilled),
        Order::OrderRejected(_) => Some(Kind::OrderRejected),
        Order::OrderPaymentFailed(_) => Some(Kind::OrderPaymentFailed),
        Order::OrderCancelled(_) => Some(Kind::OrderCancelled),
        Order::OrderExpired(_) => Some(Kind::OrderExpired),
        Order::OrderPlaced(_)
        | Order::OrderReserved(_)
        | Order::OrderPaid(_)
        | Order::OrderPartlyFulfilled(_)
        | Order::OrderItemsReturned(_)
        | Order::OrderRefunded(_)
        | Order::OrderRefundFailed(_) => None,
    }
}

fn parse(service: &Service, record: &Record) -> Result<Vec<New>, HandleError> {
    let caused = if record.topic == Order::TOPIC { Some(of_order(record)?) } else { of_user(record)? };
    let Some((user_id, subject_id, kind)) = caused else { return Ok(vec![]) };
    // Links are sent to the address that they are about.
    let has_text = kind.is_of_order() && service.sms.is_some();
    let channels = [Some(Channel::Email), has_text.then_some(Channel::Sms)];
    let new = channels.into_iter().flatten().map(|channel| New {
        notification_id: service.clock.new_id(),
        user_id: UserId::new(user_id),
        subject_id,
        kind,
        channel,
        event: record.payload.clone(),
        occurred_at: record.occurred_at,
    });
    Ok(new.collect())
}

fn of_order(record: &Record) -> Result<(Uuid, Uuid, Kind), HandleError> {
    let order = OrderEvent::decode(&*record.payload)?;
    let event = order.event.ok_or_else(|| poisoned("it has no payload"))?;
    let kind = kind_of(&event).ok_or_else(|| poisoned("its type is not the one in its headers"))?;
    Ok((parse_id(&order.user_id, "user_id")?, parse_id(&order.order_id, "order_id")?, kind))
}

/// None: for a purpose that only a later release knows.
fn of_user(record: &Record) -> Result<Option<(Uuid, Uuid, Kind)>, HandleError> {
    let user = UserEvent::decode(&*record.payload)?;
    let Some(User::MailRequested(mail)) = user.event else {
        return Err(poisoned("its type is not the one in its headers"));
    };
    let kind = match mail.purpose() {
        MailPurpose::ResetPassword => Kind::ResetPassword,
        MailPurpose::VerifyEmail => Kind::VerifyEmail,
        MailPurpose::Unspecified => {
            tracing::warn!(event_id = %record.event_id, purpose = mail.purpose, "a mail for an unknown purpose is not sent");
            return Ok(None);
        }
    };
    Ok(Some((parse_id(&user.user_id, "user_id")?, parse_id(&mail.mail_request_id, "mail_request_id")?, kind)))
}

fn poisoned(why: &str) -> HandleError {
    HandleError::Poisoned(why.to_owned())
}

fn parse_id(text: &str, what: &str) -> Result<Uuid, HandleError> {
    Uuid::parse_str(text).map_err(|_| poisoned(&format!("its {what} is not a UUID")))
}
