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
use crate::stripe::{Answer, Intent, Status, Unknown};

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
    match judge((payment.state, payment.goal), &intent) {
        Judgement::NeverHappened => {
            let Some(payment) = renew(service, payment).await? else { return Ok(()) };
            do_it(service, &payment, &intent.id).await
        }
        _ => conclude(service, payment, &intent).await,
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
#[derive(Debug)]
enum Judgement {
    Ended(Outcome),
    NeverHappened,
    /// The provider is still at work on it.
    NotYet,
    /// No call of ours leads there.
    Odd,
}

fn judge((state, goal): (State, Goal), intent: &Intent) -> Judgement {
    let reason = |otherwise| intent.last_payment_error.as_ref().map_or(otherwise, |failure| failure.reason());
    Judgement::Ended(match (state, intent.status) {
        (State::Authorizing | State::Capturing | State::Voiding, Status::Processing) => return Judgement::NotYet,
        (State::Authorizing, Status::RequiresConfirmation)
        | (State::Capturing | State::Voiding, Status::RequiresCapture)
        // The provider let go of the hold by itself, and the intent is still to be cancelled.
        | (State::Voiding, Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction) => {
            return Judgement::NeverHappened;
        }
        // What somebody captured already is found by our own capture, or given back.
        (State::Authorizing, Status::RequiresCapture | Status::Succeeded) => Outcome::Authorized,
        (State::Authorizing, Status::RequiresAction) => Outcome::Declined { reason: "AUTHENTICATION_REQUIRED" },
        (State::Authorizing, Status::RequiresPaymentMethod) => Outcome::Declined { reason: reason("CARD_DECLINED") },
        (State::Authorizing, Status::Canceled) if intent.was_held() => Outcome::CameAndWent,
        (State::Authorizing, Status::Canceled) if goal != Goal::Released => {
            Outcome::Declined { reason: "PAYMENT_REFUSED" }
        }
        (State::Authorizing | State::Voiding, Status::Canceled) => Outcome::Voided,
        (State::Capturing | State::Voiding, Status::Succeeded) => Outcome::Captured { minor: intent.amount_received },
        (State::Capturing, Status::Canceled | Status::RequiresPaymentMethod) => {
            Outcome::CaptureFailed { reason: reason("CAPTURE_REFUSED") }
        }
        _ => return Judgement::Odd,
    })
}

/// Takes what was said of the intent for how the call ended.
pub(super) async fn conclude(service: &Service, payment: &Payment, intent: &Intent) -> Result<(), Stopped> {
    match judge((payment.state, payment.goal), intent) {
        Judgement::Ended(outcome) => finish(service, payment, outcome).await,
        Judgement::NotYet => Err(Unknown::new("look up", "the provider is still at work on it".to_owned()).into()),
        Judgement::NeverHappened | Judgement::Odd => {
            let (state, status) = (payment.state.name(), intent.status);
            Err(broken(payment, &format!("it is {state}, and its intent {status:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row for each state whose call was begun, a column for each status of an intent in the order below: the outcome's
    /// first letter, - for a call that never happened, . for one that is not done yet, ? for what no call of ours leads to.
    #[test]
    fn every_word_of_the_provider_is_judged() {
        let statuses = [
            "requires_payment_method",
            "requires_confirmation",
            "requires_action",
            "processing",
            "requires_capture",
            "canceled",
            "succeeded",
        ];
        let table = [
            (State::Authorizing, Goal::Authorized, "D-D.ADA"),
            (State::Authorizing, Goal::Released, "D-D.AVA"),
            (State::Capturing, Goal::Captured, "F??.-FC"),
            (State::Capturing, Goal::Released, "F??.-FC"),
            (State::Voiding, Goal::Released, "---.-VC"),
        ];
        for (state, goal, row) in table {
            let judged: String = statuses
                .iter()
                .map(|status| {
                    let intent = serde_json::from_value(json!({"id": "pi_1", "status": status})).expect("an intent");
                    match judge((state, goal), &intent) {
                        Judgement::Ended(Outcome::Authorized) => 'A',
                        Judgement::Ended(Outcome::Declined { .. }) => 'D',
                        Judgement::Ended(Outcome::Captured { .. }) => 'C',
                        Judgement::Ended(Outcome::CaptureFailed { .. }) => 'F',
                        Judgement::Ended(Outcome::Voided) => 'V',
                        Judgement::Ended(other) => panic!("{other:?}"),
                        Judgement::NeverHappened => '-',
                        Judgement::NotYet => '.',
                        Judgement::Odd => '?',
                    }
                })
                .collect();
            assert_eq!(judged, row, "{state:?} {goal:?}");
        }
    }
}
