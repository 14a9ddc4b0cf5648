//! A call was begun and nobody knows how it ended: the provider does. What never happened is done now, under the next key,
//! or given up if it is not wanted any more.

use super::authorize::{authorize, confirm, withdraw};
use super::capture::capture;
use super::void::{void, void_instead};
use super::{Stopped, broken, finish, intent_of, renew};
use crate::Service;
use crate::goal::{Goal, State};
use crate::outcome::Outcome;
use crate::payment::Payment;
use crate::stripe::{Answer, Intent, Status};

pub(super) async fn look_up(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let Some(intent_id) = &payment.intent_id else {
        // Not even the intent is known, so nobody confirmed it. Creating it again finds the one that exists, or makes it.
        return match payment.goal {
            Goal::Released => finish(service, payment, Outcome::Voided).await,
            Goal::Authorized | Goal::Captured => authorize(service, payment).await,
        };
    };
    if payment.unsent {
        return do_it(service, payment, intent_id).await;
    }
    let intent = ask(service, payment).await?;
    match judge(payment, &intent) {
        Some(Judgement::Ended(outcome)) => finish(service, payment, outcome).await,
        None => Err(odd(payment, &intent)),
        Some(Judgement::NeverHappened) => {
            let Some(payment) = renew(service, payment).await? else { return Ok(()) };
            do_it(service, &payment, &intent.id).await
        }
    }
}

/// The call that its state tells of never happened: it is made now, or what is wanted instead.
async fn do_it(service: &Service, payment: &Payment, intent_id: &str) -> Result<(), Stopped> {
    match (payment.state, payment.goal) {
        (State::Authorizing, Goal::Released) => withdraw(service, payment, intent_id).await,
        (State::Authorizing, _) => confirm(service, payment, intent_id).await,
        (State::Capturing, Goal::Released) => void_instead(service, payment).await,
        (State::Capturing, _) => capture(service, payment).await,
        _ => void(service, payment).await,
    }
}

/// What the provider says of a payment's intent.
pub(super) async fn ask(service: &Service, payment: &Payment) -> Result<Intent, Stopped> {
    match service.provider.get(intent_of(payment)?).await? {
        Answer::Done(intent) => Ok(intent),
        answer => Err(broken(payment, &format!("looking its intent up was refused: {answer:?}"))),
    }
}

/// What the provider's word about an intent means for a payment whose call was begun.
enum Judgement {
    Ended(Outcome),
    NeverHappened,
}

fn judge(payment: &Payment, intent: &Intent) -> Option<Judgement> {
    let reason = |otherwise| intent.last_payment_error.as_ref().map_or(otherwise, |failure| failure.reason());
    Some(Judgement::Ended(match (payment.state, intent.status) {
        (State::Authorizing, Status::RequiresConfirmation)
        | (State::Capturing | State::Voiding, Status::RequiresCapture) => return Some(Judgement::NeverHappened),
        // What somebody captured already is found by our own capture, or given back.
        (State::Authorizing, Status::RequiresCapture | Status::Succeeded) => Outcome::Authorized,
        (State::Authorizing, Status::RequiresAction) => Outcome::Declined { reason: "AUTHENTICATION_REQUIRED" },
        (State::Authorizing, Status::RequiresPaymentMethod) => Outcome::Declined { reason: reason("CARD_DECLINED") },
        (State::Authorizing, Status::Canceled) if intent.was_held() => Outcome::CameAndWent,
        (State::Authorizing, Status::Canceled) if payment.goal != Goal::Released => {
            Outcome::Declined { reason: "PAYMENT_REFUSED" }
        }
        (State::Authorizing | State::Voiding, Status::Canceled) => Outcome::Voided,
        (State::Capturing | State::Voiding, Status::Succeeded) => Outcome::Captured { minor: intent.amount_received },
        (State::Capturing, Status::Canceled | Status::RequiresPaymentMethod) => {
            Outcome::CaptureFailed { reason: reason("CAPTURE_REFUSED") }
        }
        _ => return None,
    }))
}

/// Takes what was said of the intent for how the call ended.
pub(super) async fn conclude(service: &Service, payment: &Payment, intent: &Intent) -> Result<(), Stopped> {
    match judge(payment, intent) {
        Some(Judgement::Ended(outcome)) => finish(service, payment, outcome).await,
        Some(Judgement::NeverHappened) | None => Err(odd(payment, intent)),
    }
}

fn odd(payment: &Payment, intent: &Intent) -> Stopped {
    broken(payment, &format!("it is {}, and its intent {:?}", payment.state.name(), intent.status))
}
