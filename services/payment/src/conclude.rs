//! What the provider's response to a call means for the payment. Pure; tests walk every status of an intent.

use time::{Duration, OffsetDateTime};

use crate::call::{Call, CallResponse};
use crate::changes::Fact;
use crate::claim::{Claimed, Retry};
use crate::decide::CallStatus;
use crate::payment::Payment;
use crate::refund::Refund;
use crate::state::{Goal, State};
use crate::stripe::{self, CallError, Intent, OutcomeUnknown, RefundStatus, Response, Status};

/// How long after its first request a refund may be missing in the provider's list.
const SHOWS_WITHIN: Duration = Duration::seconds(60);
/// How long after the provider refused a refund of an ended order it is attempted again.
const RETRY_REFUSED: Duration = Duration::seconds(600);

/// What follows from a decision, or from a response.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing is recorded: more is known of the call, and what comes next is decided again.
    GoOn(CallStatus),
    Record(Fact, Then),
    /// The payment is processed again later.
    Retry(Retry),
    /// An invariant does not hold.
    Broken(String),
}

/// What follows once a fact is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// The next call, under the same lease.
    Call(CallStatus),
    /// The lease ends; the payment is due again if its goal is not reached.
    EndLease,
    /// The lease ends, and the current refund is due again at this time.
    EndLeaseUntil(OffsetDateTime),
}

pub(crate) fn conclude(
    claimed: &Claimed,
    call: Call<'_>,
    response: Result<CallResponse, CallError>,
    now: OffsetDateTime,
) -> Outcome {
    let response = match response {
        Ok(response) => response,
        Err(error) => return without_response(call, error),
    };
    let payment = &claimed.payment;
    match (call, response) {
        (Call::Create(_), CallResponse::Intent(response)) => created(payment, response),
        (Call::Confirm(..), CallResponse::Intent(response)) => confirmed(payment, response),
        (Call::Capture(..), CallResponse::Intent(response)) => captured(payment, response),
        (Call::Cancel(..), CallResponse::Intent(Response::Done(intent) | Response::OtherState(intent))) => {
            cancelled(claimed, &intent)
        }
        (Call::Get { .. }, CallResponse::Intent(Response::Done(intent))) => looked_up(claimed, &intent),
        (Call::Refund { refund, .. }, CallResponse::Refund(response)) => refunded(refund, response, now),
        (Call::GetRefund { refund, .. }, CallResponse::Refund(Response::Done(theirs))) => {
            outcome_of_refund(refund, &theirs, now)
        }
        (Call::ListRefunds { refund, .. }, CallResponse::Refunds(Response::Done(theirs))) => {
            listed(refund, &theirs, now)
        }
        (call, response) => Outcome::Broken(format!("{} got {response:?}", call.name())),
    }
}

fn without_response(call: Call<'_>, error: CallError) -> Outcome {
    Outcome::Retry(match error {
        CallError::NotSent(not_sent) => not_sent.into(),
        // The provider may keep its error under the key for a day. An intent that is never confirmed moves no money.
        CallError::OutcomeUnknown(unknown) => {
            let new_key = unknown.error_may_be_stored && matches!(call, Call::Create(_));
            Retry { new_key, ..Retry::because(unknown.to_string()) }
        }
    })
}

fn created(payment: &Payment, response: Response<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match response {
        Response::Done(intent) | Response::OtherState(intent) => {
            Outcome::Record(Fact::Created { intent_id: intent.id }, Then::Call(CallStatus::NotSent))
        }
        Response::Declined(reason) => Outcome::Record(Fact::Declined { reason }, Then::EndLease),
        Response::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider refuses to create the payment intent");
            Outcome::Record(Fact::Declined { reason: "PAYMENT_REFUSED" }, Then::EndLease)
        }
    }
}

fn confirmed(payment: &Payment, response: Response<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match response {
        Response::Done(intent) => outcome_of(payment, &intent),
        Response::OtherState(_) => Outcome::GoOn(CallStatus::Responded),
        Response::Declined(reason) => Outcome::Record(Fact::Declined { reason }, Then::EndLease),
        Response::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider refuses to confirm the payment");
            Outcome::GoOn(CallStatus::Refused("PAYMENT_REFUSED"))
        }
    }
}

/// A refusal does not say whether the amount is still authorized, so the intent is read before anything is recorded.
fn captured(payment: &Payment, response: Response<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match response {
        Response::Done(intent) | Response::OtherState(intent) => outcome_of(payment, &intent),
        Response::Declined(reason) => Outcome::GoOn(CallStatus::Refused(reason)),
        Response::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider refuses to capture the payment");
            Outcome::GoOn(CallStatus::Refused("CAPTURE_REFUSED"))
        }
    }
}

fn cancelled(claimed: &Claimed, intent: &Intent) -> Outcome {
    match (claimed.payment.state, claimed.call) {
        // A confirmation that was sent earlier may have arrived first: its outcome is read from the intent.
        (State::Authorizing, _) => Outcome::GoOn(CallStatus::Responded),
        (State::Capturing, CallStatus::RefusedAndOpen(reason)) => {
            outcome_of_refused_capture(&claimed.payment, intent, reason)
        }
        _ => outcome_of(&claimed.payment, intent),
    }
}

fn looked_up(claimed: &Claimed, intent: &Intent) -> Outcome {
    let payment = &claimed.payment;
    match (payment.state, claimed.call, intent.status) {
        (State::Captured, CallStatus::NotListed { others_minor }, _) => not_listed(claimed, intent, others_minor),
        (State::Authorizing, CallStatus::Refused(reason), Status::RequiresConfirmation)
        | (State::Capturing, CallStatus::Refused(reason), Status::RequiresCapture) => {
            Outcome::GoOn(CallStatus::RefusedAndOpen(reason))
        }
        (State::Capturing, CallStatus::Refused(reason), _) => outcome_of_refused_capture(payment, intent, reason),
        (_, CallStatus::Unknown, _) => match interpret((payment.state, payment.goal), intent) {
            // The provider may have stored an error under the key of that call, so the next one has another.
            Meaning::NoEffect => Outcome::Record(Fact::NoEffect, Then::Call(CallStatus::NotSent)),
            _ => outcome_of(payment, intent),
        },
        _ => outcome_of(payment, intent),
    }
}

/// What the status of an intent means for a payment whose call was begun.
#[derive(Debug)]
enum Meaning {
    Ended(Fact),
    /// The call never arrived, or failed.
    NoEffect,
    /// The provider still processes the call.
    InProgress,
    /// No call of ours leads to this status.
    Contradiction,
}

fn interpret((state, goal): (State, Goal), intent: &Intent) -> Meaning {
    let reason = |otherwise| intent.last_payment_error.as_ref().map_or(otherwise, |failure| failure.reason());
    Meaning::Ended(match (state, intent.status) {
        (State::Authorizing | State::Capturing | State::Voiding, Status::Processing) => return Meaning::InProgress,
        (State::Authorizing, Status::RequiresConfirmation)
        | (State::Capturing | State::Voiding, Status::RequiresCapture)
        // The provider released the authorization, and the intent is still to be cancelled.
        | (State::Voiding, Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction) => {
            return Meaning::NoEffect;
        }
        // An operator may have captured it at the provider: our own capture finds that, or a refund follows.
        (State::Authorizing, Status::RequiresCapture | Status::Succeeded) => Fact::Authorized,
        (State::Authorizing, Status::RequiresAction) => Fact::Declined { reason: "AUTHENTICATION_REQUIRED" },
        (State::Authorizing, Status::RequiresPaymentMethod) => Fact::Declined { reason: reason("CARD_DECLINED") },
        (State::Authorizing, Status::Canceled) if intent.was_authorized() => Fact::AuthorizedAndVoided,
        (State::Authorizing, Status::Canceled) if goal != Goal::Released => Fact::Declined { reason: "PAYMENT_REFUSED" },
        (State::Authorizing | State::Voiding, Status::Canceled) => Fact::Voided,
        (State::Capturing | State::Voiding, Status::Succeeded) => Fact::Captured { minor: intent.amount_received },
        (State::Capturing, Status::Canceled | Status::RequiresPaymentMethod) => {
            Fact::CaptureFailed { reason: reason("CAPTURE_REFUSED") }
        }
        _ => return Meaning::Contradiction,
    })
}

/// How the call ended, as its intent shows.
fn outcome_of(payment: &Payment, intent: &Intent) -> Outcome {
    match interpret((payment.state, payment.goal), intent) {
        Meaning::Ended(fact) => Outcome::Record(fact, Then::EndLease),
        Meaning::InProgress => unknown("look up", "the provider still processes it".to_owned()),
        Meaning::NoEffect | Meaning::Contradiction => {
            Outcome::Broken(format!("it is {}, and its intent {:?}", payment.state.name(), intent.status))
        }
    }
}

fn outcome_of_refused_capture(payment: &Payment, intent: &Intent, reason: &'static str) -> Outcome {
    match intent.status {
        Status::Canceled | Status::RequiresPaymentMethod => {
            Outcome::Record(Fact::CaptureFailed { reason }, Then::EndLease)
        }
        _ => outcome_of(payment, intent),
    }
}

fn refunded(refund: &Refund, response: Response<stripe::Refund>, now: OffsetDateTime) -> Outcome {
    match response {
        Response::Done(theirs) => outcome_of_refund(refund, &theirs, now),
        Response::Declined(reason) => refund_failed(refund.clone(), reason.to_owned(), now),
        Response::Refused(code) => refund_failed(refund.clone(), code, now),
        Response::OtherState(intent) => {
            refund_failed(refund.clone(), format!("its intent is {:?}", intent.status), now)
        }
    }
}

fn outcome_of_refund(refund: &Refund, theirs: &stripe::Refund, now: OffsetDateTime) -> Outcome {
    let named = Refund { reference: Some(theirs.id.clone()), ..refund.clone() };
    match theirs.status {
        RefundStatus::Succeeded if theirs.amount == refund.minor => {
            Outcome::Record(Fact::Refunded { refund: named.into() }, Then::EndLease)
        }
        RefundStatus::Succeeded => {
            Outcome::Broken(format!("refund {} is of {} instead of {}", theirs.id, theirs.amount, refund.minor))
        }
        RefundStatus::Failed | RefundStatus::Canceled => refund_failed(named, theirs.why().to_owned(), now),
        RefundStatus::UnderWay => {
            let due_at = Refund { updated_at: now, ..named.clone() }.due_at();
            Outcome::Record(Fact::RefundUnderWay { refund: named.into() }, Then::EndLeaseUntil(due_at))
        }
    }
}

/// A refund of an ended order is attempted again, unless the provider refuses it for good.
fn refund_failed(refund: Refund, why: String, now: OffsetDateTime) -> Outcome {
    Outcome::Record(Fact::RefundFailed { refund: refund.into(), why }, Then::EndLeaseUntil(now + RETRY_REFUSED))
}

/// A refund is requested under another key only if the provider does not list it a minute after the first request. Under the
/// same key, a request that is repeated has no second effect.
fn listed(refund: &Refund, theirs: &[stripe::Refund], now: OffsetDateTime) -> Outcome {
    if let Some(ours) = theirs.iter().find(|theirs| theirs.is(refund.refund_id.0)) {
        return outcome_of_refund(refund, ours, now);
    }
    let may_show = refund.tried_at.is_some_and(|tried_at| now - tried_at < SHOWS_WITHIN);
    Outcome::GoOn(if may_show {
        CallStatus::NotSent
    } else {
        let others_minor = theirs.iter().filter(|theirs| theirs.counts()).map(|theirs| theirs.amount).sum();
        CallStatus::NotListed { others_minor }
    })
}

/// If the listed refunds add up to the refunded amount of the intent, the refund that is not listed was never made.
fn not_listed(claimed: &Claimed, intent: &Intent, others_minor: i64) -> Outcome {
    let refunded = intent.refunded();
    match &claimed.refund {
        Some(refund) if refunded == others_minor => {
            let begun = Refund { call: refund.call + 1, ..refund.clone() };
            Outcome::Record(Fact::RefundBegun { refund: begun.into() }, Then::Call(CallStatus::NotSent))
        }
        _ => unknown("refund", format!("the provider refunded {refunded}, but lists refunds of {others_minor}")),
    }
}

fn unknown(operation: &'static str, why: String) -> Outcome {
    Outcome::Retry(Retry::because(OutcomeUnknown::undecided(operation, why).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row for each state whose call was begun, a column for each status of an intent in the order below: the fact's
    /// first letter, - for a call without effect, . for one in progress, ? for a status that no call of ours leads to.
    #[test]
    fn every_status_of_an_intent_has_a_meaning() {
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
            let meanings: String = statuses
                .iter()
                .map(|status| {
                    let intent = serde_json::from_value(json!({"id": "pi_1", "status": status})).expect("an intent");
                    match interpret((state, goal), &intent) {
                        Meaning::Ended(Fact::Authorized) => 'A',
                        Meaning::Ended(Fact::Declined { .. }) => 'D',
                        Meaning::Ended(Fact::Captured { .. }) => 'C',
                        Meaning::Ended(Fact::CaptureFailed { .. }) => 'F',
                        Meaning::Ended(Fact::Voided) => 'V',
                        Meaning::Ended(other) => panic!("{other:?}"),
                        Meaning::NoEffect => '-',
                        Meaning::InProgress => '.',
                        Meaning::Contradiction => '?',
                    }
                })
                .collect();
            assert_eq!(meanings, row, "{state:?} {goal:?}");
        }
    }
}
