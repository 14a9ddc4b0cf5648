//! What the provider's answer means for the payment whose call it was. Pure; tests walk every status of an intent.

use time::{Duration, OffsetDateTime};

use crate::book::Fact;
use crate::call::{Call, Reply};
use crate::claim::{Claimed, Retry};
use crate::decide::CallStatus;
use crate::payment::Payment;
use crate::refund::Refund;
use crate::state::{Goal, State};
use crate::stripe::{self, Answer, CallError, Intent, OutcomeUnknown, RefundStatus, Status};

/// How long a refund that was asked for may take to show at the provider.
const SHOWS_WITHIN: Duration = Duration::seconds(60);
/// How long after the provider refused a refund of an ended order it is attempted again.
const REFUSED: Duration = Duration::seconds(600);

/// What follows from a decision, or from an answer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There is nothing to record, and more is known of the call that is under way.
    GoOn(CallStatus),
    Record(Fact, Then),
    /// The payment is left as it is until later.
    Retry(Retry),
    /// An invariant does not hold.
    Broken(String),
}

/// What follows once a fact is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// The next call, under the same lease.
    Call(CallStatus),
    /// The lease is released; the payment is due again if its goal is not reached.
    Release,
    /// The lease is released, and the refund that was worked on is due again then.
    ReleaseUntil(OffsetDateTime),
}

pub(crate) fn conclude(
    claimed: &Claimed,
    call: Call<'_>,
    answer: Result<Reply, CallError>,
    now: OffsetDateTime,
) -> Outcome {
    let reply = match answer {
        Ok(reply) => reply,
        Err(error) => return unanswered(call, error),
    };
    let payment = &claimed.payment;
    match (call, reply) {
        (Call::Create(_), Reply::Intent(answer)) => created(payment, answer),
        (Call::Confirm(..), Reply::Intent(answer)) => confirmed(payment, answer),
        (Call::Capture(..), Reply::Intent(answer)) => captured(payment, answer),
        (Call::Cancel(..), Reply::Intent(Answer::Done(intent) | Answer::Elsewhere(intent))) => {
            cancelled(claimed, &intent)
        }
        (Call::Get { .. }, Reply::Intent(Answer::Done(intent))) => looked_up(claimed, &intent),
        (Call::Refund { refund, .. }, Reply::Refund(answer)) => refunded(refund, answer, now),
        (Call::GetRefund { refund, .. }, Reply::Refund(Answer::Done(theirs))) => judge_refund(refund, &theirs, now),
        (Call::ListRefunds { refund, .. }, Reply::Refunds(Answer::Done(theirs))) => listed(refund, &theirs, now),
        (call, reply) => Outcome::Broken(format!("{} was answered {reply:?}", call.name())),
    }
}

fn unanswered(call: Call<'_>, error: CallError) -> Outcome {
    Outcome::Retry(match error {
        CallError::NotSent(not_sent) => not_sent.into(),
        // The provider may keep its error under the key for a day. An intent that is never confirmed moves no money.
        CallError::OutcomeUnknown(unknown) => {
            let new_key = unknown.answered && matches!(call, Call::Create(_));
            Retry { new_key, ..Retry::because(unknown.to_string()) }
        }
    })
}

fn created(payment: &Payment, answer: Answer<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match answer {
        Answer::Done(intent) | Answer::Elsewhere(intent) => {
            Outcome::Record(Fact::Created { intent_id: intent.id }, Then::Call(CallStatus::NotMade))
        }
        Answer::Declined(reason) => Outcome::Record(Fact::Declined { reason }, Then::Release),
        Answer::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider does not take this payment");
            Outcome::Record(Fact::Declined { reason: "PAYMENT_REFUSED" }, Then::Release)
        }
    }
}

fn confirmed(payment: &Payment, answer: Answer<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match answer {
        Answer::Done(intent) => judge_end(payment, &intent),
        Answer::Elsewhere(_) => Outcome::GoOn(CallStatus::Answered),
        Answer::Declined(reason) => Outcome::Record(Fact::Declined { reason }, Then::Release),
        Answer::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider does not confirm this payment");
            Outcome::GoOn(CallStatus::Refused("PAYMENT_REFUSED"))
        }
    }
}

/// A refusal does not say whether the amount is still held, and only what is not held any more may be recorded so.
fn captured(payment: &Payment, answer: Answer<Intent>) -> Outcome {
    let payment_id = payment.payment_id;
    match answer {
        Answer::Done(intent) | Answer::Elsewhere(intent) => judge_end(payment, &intent),
        Answer::Declined(reason) => Outcome::GoOn(CallStatus::Refused(reason)),
        Answer::Refused(code) => {
            tracing::warn!(%payment_id, code, "the provider does not capture this payment");
            Outcome::GoOn(CallStatus::Refused("CAPTURE_REFUSED"))
        }
    }
}

fn cancelled(claimed: &Claimed, intent: &Intent) -> Outcome {
    match (claimed.payment.state, claimed.call) {
        // A confirmation that was sent earlier may have arrived first: the provider is asked for its outcome.
        (State::Authorizing, _) => Outcome::GoOn(CallStatus::Answered),
        (State::Capturing, CallStatus::RefusedAndOpen(reason)) => {
            judge_refused_capture(&claimed.payment, intent, reason)
        }
        _ => judge_end(&claimed.payment, intent),
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
        (State::Capturing, CallStatus::Refused(reason), _) => judge_refused_capture(payment, intent, reason),
        (_, CallStatus::Unknown, _) => match judge((payment.state, payment.goal), intent) {
            // Whatever the provider keeps under the key of that call, the next one has another.
            Judgement::NeverHappened => Outcome::Record(Fact::NeverHappened, Then::Call(CallStatus::NotMade)),
            _ => judge_end(payment, intent),
        },
        _ => judge_end(payment, intent),
    }
}

/// What the status of an intent means for a payment whose call was begun.
#[derive(Debug)]
enum Judgement {
    Ended(Fact),
    NeverHappened,
    /// The provider is still at work on it.
    NotYet,
    /// No call of ours leads there.
    Contradiction,
}

fn judge((state, goal): (State, Goal), intent: &Intent) -> Judgement {
    let reason = |otherwise| intent.last_payment_error.as_ref().map_or(otherwise, |failure| failure.reason());
    Judgement::Ended(match (state, intent.status) {
        (State::Authorizing | State::Capturing | State::Voiding, Status::Processing) => return Judgement::NotYet,
        (State::Authorizing, Status::RequiresConfirmation)
        | (State::Capturing | State::Voiding, Status::RequiresCapture)
        // The provider released the hold by itself, and the intent is still to be cancelled.
        | (State::Voiding, Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction) => {
            return Judgement::NeverHappened;
        }
        // An amount that was captured at the provider itself is found by our own capture, or refunded.
        (State::Authorizing, Status::RequiresCapture | Status::Succeeded) => Fact::Authorized,
        (State::Authorizing, Status::RequiresAction) => Fact::Declined { reason: "AUTHENTICATION_REQUIRED" },
        (State::Authorizing, Status::RequiresPaymentMethod) => Fact::Declined { reason: reason("CARD_DECLINED") },
        (State::Authorizing, Status::Canceled) if intent.was_held() => Fact::HeldAndReleased,
        (State::Authorizing, Status::Canceled) if goal != Goal::Released => Fact::Declined { reason: "PAYMENT_REFUSED" },
        (State::Authorizing | State::Voiding, Status::Canceled) => Fact::Voided,
        (State::Capturing | State::Voiding, Status::Succeeded) => Fact::Captured { minor: intent.amount_received },
        (State::Capturing, Status::Canceled | Status::RequiresPaymentMethod) => {
            Fact::CaptureFailed { reason: reason("CAPTURE_REFUSED") }
        }
        _ => return Judgement::Contradiction,
    })
}

/// What the intent says is how the call ended.
fn judge_end(payment: &Payment, intent: &Intent) -> Outcome {
    match judge((payment.state, payment.goal), intent) {
        Judgement::Ended(fact) => Outcome::Record(fact, Then::Release),
        Judgement::NotYet => unknown("look up", "the provider is still at work on it".to_owned()),
        Judgement::NeverHappened | Judgement::Contradiction => {
            Outcome::Broken(format!("it is {}, and its intent {:?}", payment.state.name(), intent.status))
        }
    }
}

fn judge_refused_capture(payment: &Payment, intent: &Intent, reason: &'static str) -> Outcome {
    match intent.status {
        Status::Canceled | Status::RequiresPaymentMethod => {
            Outcome::Record(Fact::CaptureFailed { reason }, Then::Release)
        }
        _ => judge_end(payment, intent),
    }
}

fn refunded(refund: &Refund, answer: Answer<stripe::Refund>, now: OffsetDateTime) -> Outcome {
    match answer {
        Answer::Done(theirs) => judge_refund(refund, &theirs, now),
        Answer::Declined(reason) => refund_failed(refund.clone(), reason.to_owned(), now),
        Answer::Refused(code) => refund_failed(refund.clone(), code, now),
        Answer::Elsewhere(intent) => refund_failed(refund.clone(), format!("its intent is {:?}", intent.status), now),
    }
}

fn judge_refund(refund: &Refund, theirs: &stripe::Refund, now: OffsetDateTime) -> Outcome {
    let named = Refund { reference: Some(theirs.id.clone()), ..refund.clone() };
    match theirs.status {
        RefundStatus::Succeeded if theirs.amount == refund.minor => {
            Outcome::Record(Fact::Refunded { refund: named.into() }, Then::Release)
        }
        RefundStatus::Succeeded => {
            Outcome::Broken(format!("refund {} gave back {} instead of {}", theirs.id, theirs.amount, refund.minor))
        }
        RefundStatus::Failed | RefundStatus::Canceled => refund_failed(named, theirs.why().to_owned(), now),
        RefundStatus::UnderWay => {
            let due_at = Refund { updated_at: now, ..named.clone() }.due_at();
            Outcome::Record(Fact::RefundUnderWay { refund: named.into() }, Then::ReleaseUntil(due_at))
        }
    }
}

/// An order that ended still wants it back, so its payment is behind until that succeeds, or until it is clear that it will
/// not.
fn refund_failed(refund: Refund, why: String, now: OffsetDateTime) -> Outcome {
    Outcome::Record(Fact::RefundFailed { refund: refund.into(), why }, Then::ReleaseUntil(now + REFUSED))
}

/// Only a refund that the provider does not know a minute after it was first asked is asked for under another key. Under the
/// same one, what was done is not done again.
fn listed(refund: &Refund, theirs: &[stripe::Refund], now: OffsetDateTime) -> Outcome {
    if let Some(ours) = theirs.iter().find(|theirs| theirs.is(refund.refund_id.0)) {
        return judge_refund(refund, ours, now);
    }
    let may_show = refund.tried_at.is_some_and(|tried_at| now - tried_at < SHOWS_WITHIN);
    Outcome::GoOn(if may_show {
        CallStatus::NotMade
    } else {
        let others_minor = theirs.iter().filter(|theirs| theirs.counts()).map(|theirs| theirs.amount).sum();
        CallStatus::NotListed { others_minor }
    })
}

/// If the refunds that the list names make up for all that the intent says went back, the one that it does not name never
/// happened.
fn not_listed(claimed: &Claimed, intent: &Intent, others_minor: i64) -> Outcome {
    let given_back = intent.refunded();
    match &claimed.refund {
        Some(refund) if given_back == others_minor => {
            let begun = Refund { call: refund.call + 1, ..refund.clone() };
            Outcome::Record(Fact::RefundBegun { refund: begun.into() }, Then::Call(CallStatus::NotMade))
        }
        _ => unknown("refund", format!("the provider gave back {given_back}, and names {others_minor} of it")),
    }
}

fn unknown(operation: &'static str, why: String) -> Outcome {
    Outcome::Retry(Retry::because(OutcomeUnknown::new(operation, why).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row for each state whose call was begun, a column for each status of an intent in the order below: the fact's
    /// first letter, - for a call that never happened, . for one that is not done yet, ? for what no call of ours leads to.
    #[test]
    fn every_status_of_an_intent_is_judged() {
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
                        Judgement::Ended(Fact::Authorized) => 'A',
                        Judgement::Ended(Fact::Declined { .. }) => 'D',
                        Judgement::Ended(Fact::Captured { .. }) => 'C',
                        Judgement::Ended(Fact::CaptureFailed { .. }) => 'F',
                        Judgement::Ended(Fact::Voided) => 'V',
                        Judgement::Ended(other) => panic!("{other:?}"),
                        Judgement::NeverHappened => '-',
                        Judgement::NotYet => '.',
                        Judgement::Contradiction => '?',
                    }
                })
                .collect();
            assert_eq!(judged, row, "{state:?} {goal:?}");
        }
    }
}
