//! Creates the intent, which may be repeated, remembers its name, and confirms it, which holds the money.

use super::look_up::{ask, conclude};
use super::{Stopped, broken, finish, renew};
use crate::Service;
use crate::goal::Goal;
use crate::outcome::{Outcome, Then, record};
use crate::payment::Payment;
use crate::stripe::{Answer, NoAnswer, Status};

pub(super) async fn authorize(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let (payment_id, order_id) = (payment.payment_id.to_string(), payment.order_id.to_string());
    let (key, amount) = (payment.key("create"), (payment.amount_minor, payment.currency.as_str()));
    let intent = match service.provider.create(&key, amount, &payment.payment_method, (&payment_id, &order_id)).await {
        Ok(Answer::Done(intent) | Answer::Elsewhere(intent)) => intent,
        Ok(Answer::Declined(reason)) => return finish(service, payment, Outcome::Declined { reason }).await,
        Ok(Answer::Refused(code)) => {
            tracing::warn!(%payment_id, code, "the provider does not take this payment");
            return finish(service, payment, Outcome::Declined { reason: "PAYMENT_REFUSED" }).await;
        }
        Err(no_answer) => {
            // It may keep this error under the key for a day. Another intent that nobody confirms harms nobody.
            if matches!(&no_answer, NoAnswer::Unknown(unknown) if unknown.answered) {
                renew(service, payment).await?;
            }
            return Err(no_answer.into());
        }
    };
    let created = Outcome::Created { intent_id: intent.id.clone() };
    let Some(payment) = record(service, payment, created, Then::GoOn).await? else { return Ok(()) };
    match payment.goal {
        // The order ended meanwhile.
        Goal::Released => withdraw(service, &payment, &intent.id).await,
        Goal::Authorized | Goal::Captured => confirm(service, &payment, &intent.id).await,
    }
}

pub(super) async fn confirm(service: &Service, payment: &Payment, intent_id: &str) -> Result<(), Stopped> {
    match service.provider.confirm(&payment.key("confirm"), intent_id).await? {
        Answer::Declined(reason) => finish(service, payment, Outcome::Declined { reason }).await,
        Answer::Done(intent) => conclude(service, payment, &intent).await,
        // A refusal tells less of the intent than it knows itself.
        Answer::Elsewhere(_) => conclude(service, payment, &ask(service, payment).await?).await,
        Answer::Refused(code) => {
            let intent = ask(service, payment).await?;
            if intent.status != Status::RequiresConfirmation {
                return conclude(service, payment, &intent).await;
            }
            tracing::warn!(payment_id = %payment.payment_id, code, "the provider does not confirm this payment");
            // One that was sent before may still be on its way, and must find nothing to confirm.
            withdraw(service, payment, intent_id).await
        }
    }
}

/// The confirmation never happened and is not wanted any more: the intent goes too. A confirmation that was still on its
/// way may have come first; the provider is asked what became of it.
pub(super) async fn withdraw(service: &Service, payment: &Payment, intent_id: &str) -> Result<(), Stopped> {
    match service.provider.cancel(&payment.key("cancel"), intent_id).await? {
        Answer::Done(_) | Answer::Elsewhere(_) => conclude(service, payment, &ask(service, payment).await?).await,
        answer => Err(broken(payment, &format!("an intent was not withdrawn: {answer:?}"))),
    }
}
