//! What to do next about a payment: from its goal, its state, and what is known of the call that is under way. Pure; the test
//! walks the whole table.

use crate::call::Call;
use crate::changes::Fact;
use crate::claim::Claimed;
use crate::conclude::{Outcome, Then};
use crate::payment::Payment;
use crate::refund::Refund;
use crate::state::{Goal, State};

/// What is known of the call that a payment's state, or its refund, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallStatus {
    /// It was certainly not sent, or had no effect: it may be sent now.
    NotSent,
    /// It may have had its effect.
    Unknown,
    /// The provider responded, and the outcome is read from the intent.
    Responded,
    /// The provider refused it, for this reason. The intent is read next: it may have changed.
    Refused(&'static str),
    /// The provider refused it, for this reason, and the intent is unchanged: it is cancelled next.
    RefusedAndOpen(&'static str),
    /// The provider's list does not have this refund. The refunds that it has add up to this amount.
    NotListed { others_minor: i64 },
}

/// What is done about a payment.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    Call(Call<'a>),
    /// No call.
    Write(Outcome),
}

/// Where calls begin: a payment with this goal and in this state goes to that state, before the call is made.
pub(crate) const BEGINS: [(Goal, State, State); 4] = [
    (Goal::Authorized, State::Pending, State::Authorizing),
    (Goal::Captured, State::Pending, State::Authorizing),
    (Goal::Captured, State::Authorized, State::Capturing),
    (Goal::Released, State::Authorized, State::Voiding),
];

fn begins(payment: &Payment) -> Option<State> {
    let begins = BEGINS.iter().find(|(goal, state, _)| (*goal, *state) == (payment.goal, payment.state));
    begins.map(|(.., next)| *next)
}

/// Whether anything is left to be done about a payment that is not claimed.
pub(crate) fn wants_work(payment: &Payment) -> bool {
    match payment.state {
        State::Authorizing | State::Capturing | State::Voiding => true,
        State::Pending | State::Authorized => payment.goal == Goal::Released || begins(payment).is_some(),
        State::Captured => payment.refund_pending_minor > 0 || payment.owes_refund(),
        State::Voided | State::Declined | State::Failed => false,
    }
}

pub(crate) fn decide(claimed: &Claimed) -> Action<'_> {
    let payment = &claimed.payment;
    if let Some(next) = begins(payment) {
        return Action::Write(Outcome::Record(Fact::Begun(next), Then::Call(CallStatus::NotSent)));
    }
    match (payment.state, &payment.intent_id) {
        // Its order ended before the first call.
        (State::Pending, _) => Action::Write(Outcome::Record(Fact::Voided, Then::EndLease)),
        // Not even the intent is known, so it was never confirmed. Creating it again finds the one that exists, or makes it.
        (State::Authorizing, None) if payment.goal == Goal::Released => {
            Action::Write(Outcome::Record(Fact::Voided, Then::EndLease))
        }
        (State::Authorizing, None) => Action::Call(Call::Create(payment)),
        (State::Authorizing | State::Capturing | State::Voiding, Some(intent_id)) => under_way(claimed, intent_id),
        (State::Captured, Some(intent_id)) => captured(claimed, intent_id),
        (State::Capturing | State::Voiding | State::Captured, None) => {
            Action::Write(Outcome::Broken("its intent is not known".to_owned()))
        }
        (State::Authorized | State::Voided | State::Declined | State::Failed, _) => goal_reached(),
    }
}

/// The call that the state stands for is made, or looked up.
fn under_way<'a>(claimed: &'a Claimed, intent_id: &'a str) -> Action<'a> {
    let payment = &claimed.payment;
    Action::Call(match (payment.state, payment.goal, claimed.call) {
        // The order ended, so the intent is cancelled: a confirmation that was sent before may still arrive, and must find
        // nothing to confirm.
        (State::Authorizing, Goal::Released, CallStatus::NotSent) => Call::Cancel(payment, intent_id),
        (State::Authorizing, _, CallStatus::NotSent) => Call::Confirm(payment, intent_id),
        // The order ended: the authorization is voided instead.
        (State::Capturing, Goal::Released, CallStatus::NotSent) => {
            let voiding = Outcome::Record(Fact::Begun(State::Voiding), Then::Call(CallStatus::NotSent));
            return Action::Write(voiding);
        }
        (State::Capturing, _, CallStatus::NotSent) => Call::Capture(payment, intent_id),
        (_, _, CallStatus::NotSent | CallStatus::RefusedAndOpen(_)) => Call::Cancel(payment, intent_id),
        // A refusal says less than the intent.
        _ => Call::Get { intent_id },
    })
}

/// Refunds are made one after the other; for an ended order, a refund of all that remains is reserved first. No state of the
/// intent guards against a second refund, so a refund is looked up before it is repeated.
fn captured<'a>(claimed: &'a Claimed, intent_id: &'a str) -> Action<'a> {
    if claimed.payment.owes_refund() {
        return Action::Write(Outcome::Record(Fact::RemainderReserved, Then::Call(claimed.call)));
    }
    let Some(refund) = &claimed.refund else {
        return match claimed.payment.refund_pending_minor {
            0 => goal_reached(),
            _ => {
                Action::Write(Outcome::Broken("an amount is reserved for refunds, but no refund is pending".to_owned()))
            }
        };
    };
    match (refund, claimed.call) {
        (Refund { reference: Some(reference), .. }, _) => Action::Call(Call::GetRefund { refund, reference }),
        (Refund { tried_at: None, .. }, _) => {
            let begun = Fact::RefundBegun { refund: refund.clone().into() };
            Action::Write(Outcome::Record(begun, Then::Call(CallStatus::NotSent)))
        }
        (_, CallStatus::NotSent) => Action::Call(Call::Refund { refund, intent_id }),
        // An empty list does not say which intent it is about, so it proves nothing. The intent has an id and the refunded
        // amount.
        (_, CallStatus::NotListed { .. }) => Action::Call(Call::Get { intent_id }),
        _ => Action::Call(Call::ListRefunds { refund, intent_id }),
    }
}

fn goal_reached<'a>() -> Action<'a> {
    Action::Write(Outcome::Record(Fact::GoalReached, Then::EndLease))
}

#[cfg(test)]
pub(crate) mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::CallStatus::{NotListed, NotSent, Refused, RefusedAndOpen, Responded, Unknown};
    use super::State::{Authorized, Authorizing, Captured, Capturing, Declined, Failed, Pending, Voided, Voiding};
    use super::*;
    use crate::ids::{OrderId, PaymentId, RefundId};
    use crate::refund::RefundState;

    pub(crate) fn claimed(state: State, goal: Goal, call: CallStatus) -> Claimed {
        let (captured_minor, now) = (if state == Captured { 2_500 } else { 0 }, OffsetDateTime::UNIX_EPOCH);
        let payment = Payment {
            payment_id: PaymentId::new(Uuid::nil()),
            order_id: OrderId::new(Uuid::nil()),
            user_id: Uuid::nil(),
            goal,
            state,
            currency: "EUR".to_owned(),
            amount_minor: 2_500,
            payment_method: "pm_card_visa".to_owned(),
            intent_id: Some("pi_1".to_owned()),
            captured_minor,
            refunded_minor: 0,
            refund_pending_minor: 0,
            failure_reason: String::new(),
            version: 0,
            cause_id: Uuid::nil(),
            lease: None,
            call: 1,
            not_sent: false,
            others_are_due: false,
            refund_refusal: String::new(),
            attempts: 0,
            created_at: now,
            updated_at: now,
        };
        Claimed { payment, call, refund: None, next_refund_at: None, failed_refunds: 0 }
    }

    /// With a refund of 1,000 that is pending.
    fn refunding(goal: Goal, call: CallStatus, tried: bool, reference: Option<&str>) -> Claimed {
        let mut claimed = claimed(Captured, goal, call);
        claimed.payment.refund_pending_minor = 1_000;
        let now = OffsetDateTime::UNIX_EPOCH;
        claimed.refund = Some(Refund {
            refund_id: RefundId::new(Uuid::nil()),
            payment_id: claimed.payment.payment_id,
            minor: 1_000,
            state: RefundState::Pending,
            reference: reference.map(str::to_owned),
            actor: "operator:1".to_owned(),
            reason: "CUSTOMER_REQUEST".to_owned(),
            call: 1,
            tried_at: tried.then_some(now),
            failure_reason: String::new(),
            created_at: now,
            updated_at: now,
        });
        claimed
    }

    fn name(claimed: &Claimed) -> &'static str {
        match decide(claimed) {
            Action::Call(call) => call.name(),
            Action::Write(Outcome::Record(Fact::GoalReached, Then::EndLease)) => "nothing",
            Action::Write(Outcome::Record(Fact::Voided, Then::EndLease)) => "end",
            Action::Write(Outcome::Record(Fact::Begun(state), Then::Call(NotSent))) => state.name(),
            Action::Write(Outcome::Record(Fact::RemainderReserved, Then::Call(_))) => "reserve",
            Action::Write(Outcome::Record(Fact::RefundBegun { .. }, Then::Call(NotSent))) => "begin",
            Action::Write(Outcome::Broken(_)) => "broken",
            other => panic!("{other:?}"),
        }
    }

    /// For each state and what is known of its call, what is done where the goal is AUTHORIZED, CAPTURED and RELEASED.
    #[test]
    fn every_state_and_goal_has_an_action() {
        let table = [
            (Pending, Unknown, ["AUTHORIZING", "AUTHORIZING", "end"]),
            (Authorizing, NotSent, ["confirm", "confirm", "cancel"]),
            (Authorizing, Unknown, ["get", "get", "get"]),
            (Authorizing, Responded, ["get", "get", "get"]),
            (Authorizing, Refused("CODE"), ["get", "get", "get"]),
            (Authorizing, RefusedAndOpen("CODE"), ["cancel", "cancel", "cancel"]),
            (Authorized, Unknown, ["nothing", "CAPTURING", "VOIDING"]),
            (Capturing, NotSent, ["capture", "capture", "VOIDING"]),
            (Capturing, Unknown, ["get", "get", "get"]),
            (Capturing, Refused("CODE"), ["get", "get", "get"]),
            (Capturing, RefusedAndOpen("CODE"), ["cancel", "cancel", "cancel"]),
            (Voiding, NotSent, ["cancel", "cancel", "cancel"]),
            (Voiding, Unknown, ["get", "get", "get"]),
            (Captured, Unknown, ["nothing", "nothing", "reserve"]),
            (Voided, Unknown, ["nothing", "nothing", "nothing"]),
            (Declined, Unknown, ["nothing", "nothing", "nothing"]),
            (Failed, Unknown, ["nothing", "nothing", "nothing"]),
        ];
        for state in State::ALL {
            assert!(table.iter().any(|row| row.0 == state), "{state:?}");
        }
        for (state, call, actions) in table {
            for (goal, action) in Goal::ALL.into_iter().zip(actions) {
                let claimed = claimed(state, goal, call);
                assert_eq!(name(&claimed), action, "{state:?} {call:?} {goal:?}");
                assert_eq!(wants_work(&claimed.payment), action != "nothing", "{state:?} {goal:?}");
            }
        }
    }

    /// Nothing is known of the intent, so nothing was confirmed.
    #[test]
    fn without_an_intent_there_is_one_to_create_or_nothing_to_undo() {
        for (state, call, actions) in [
            (Authorizing, NotSent, ["create", "create", "end"]),
            (Authorizing, Unknown, ["create", "create", "end"]),
            (Capturing, Unknown, ["broken", "broken", "broken"]),
            (Voided, Unknown, ["nothing", "nothing", "nothing"]),
        ] {
            for (goal, action) in Goal::ALL.into_iter().zip(actions) {
                let mut claimed = claimed(state, goal, call);
                claimed.payment.intent_id = None;
                assert_eq!(name(&claimed), action, "{state:?} {call:?} {goal:?}");
            }
        }
    }

    /// Refunds are made whatever the goal is; of an order that ended, the remainder is reserved first, unless it is refused.
    #[test]
    fn a_pending_refund_is_looked_up_before_it_is_repeated() {
        let table = [
            (Unknown, false, None, "begin"),
            (NotSent, false, None, "begin"),
            (NotSent, true, None, "refund"),
            (Unknown, true, None, "list refunds"),
            (NotListed { others_minor: 0 }, true, None, "get"),
            (Unknown, true, Some("re_1"), "get refund"),
        ];
        for (call, tried, reference, action) in table {
            for goal in Goal::ALL {
                let mut claimed = refunding(goal, call, tried, reference);
                let expected = if goal == Goal::Released { "reserve" } else { action };
                assert_eq!(name(&claimed), expected, "{goal:?} {call:?}");
                claimed.payment.refund_refusal = "DISPUTED".to_owned();
                assert_eq!(name(&claimed), action, "{goal:?} {call:?}");
                assert!(wants_work(&claimed.payment));
            }
        }
        let mut reserved = claimed(Captured, Goal::Captured, Unknown);
        reserved.payment.refund_pending_minor = 1;
        assert_eq!(name(&reserved), "broken", "a reservation without a refund");
    }
}
