//! What to do next about a payment: from its goal, its state, and what is known of the call that is under way. Pure; the test
//! walks the whole table.

use crate::book::Fact;
use crate::call::Call;
use crate::claim::Claimed;
use crate::conclude::{Outcome, Then};
use crate::payment::Payment;
use crate::refund::Refund;
use crate::state::{Goal, State};

/// What is known of the call that a payment's state, or its refund, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallStatus {
    /// It had no effect: it is about to be made, was never sent, or never arrived.
    NotMade,
    /// It may have had its effect.
    Unknown,
    /// It was answered, and the outcome is read from its intent.
    Answered,
    /// The provider refused it, for this reason. Whether the intent still stands is to be asked.
    Refused(&'static str),
    /// The provider refused it, for this reason, and the intent still stands.
    RefusedAndOpen(&'static str),
    /// The provider's list does not name this refund. The refunds that it names gave back so much.
    NotListed { others_minor: i64 },
}

/// What is done about a payment.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    Call(Call<'a>),
    /// Nothing is asked of the provider.
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
        State::Captured => payment.refund_pending_minor > 0 || payment.keeps_too_much(),
        State::Voided | State::Declined | State::Failed => false,
    }
}

pub(crate) fn decide(claimed: &Claimed) -> Action<'_> {
    let payment = &claimed.payment;
    if let Some(next) = begins(payment) {
        return Action::Write(Outcome::Record(Fact::Begun(next), Then::Call(CallStatus::NotMade)));
    }
    match (payment.state, &payment.intent_id) {
        // Its order ended before anything was asked of the provider.
        (State::Pending, _) => Action::Write(Outcome::Record(Fact::Voided, Then::Release)),
        // Not even the intent is known, so it was never confirmed. Creating it again finds the one that exists, or makes it.
        (State::Authorizing, None) if payment.goal == Goal::Released => {
            Action::Write(Outcome::Record(Fact::Voided, Then::Release))
        }
        (State::Authorizing, None) => Action::Call(Call::Create(payment)),
        (State::Authorizing | State::Capturing | State::Voiding, Some(intent_id)) => under_way(claimed, intent_id),
        (State::Captured, Some(intent_id)) => captured(claimed, intent_id),
        (State::Capturing | State::Voiding | State::Captured, None) => {
            Action::Write(Outcome::Broken("its intent is not known".to_owned()))
        }
        (State::Authorized | State::Voided | State::Declined | State::Failed, _) => at_rest(),
    }
}

/// The call that the state stands for is made, or looked up.
fn under_way<'a>(claimed: &'a Claimed, intent_id: &'a str) -> Action<'a> {
    let payment = &claimed.payment;
    Action::Call(match (payment.state, payment.goal, claimed.call) {
        // The confirmation is not wanted any more: the intent goes too. One that was sent before may still be on its way, and
        // must find nothing to confirm.
        (State::Authorizing, Goal::Released, CallStatus::NotMade) => Call::Cancel(payment, intent_id),
        (State::Authorizing, _, CallStatus::NotMade) => Call::Confirm(payment, intent_id),
        // The capture is not wanted any more: what is held goes back.
        (State::Capturing, Goal::Released, CallStatus::NotMade) => {
            let voiding = Outcome::Record(Fact::Begun(State::Voiding), Then::Call(CallStatus::NotMade));
            return Action::Write(voiding);
        }
        (State::Capturing, _, CallStatus::NotMade) => Call::Capture(payment, intent_id),
        (_, _, CallStatus::NotMade | CallStatus::RefusedAndOpen(_)) => Call::Cancel(payment, intent_id),
        // The intent knows more than a refusal says.
        _ => Call::Get { intent_id },
    })
}

/// Refunds are made one after the other, and the rest of what an ended order paid is reserved for another one first. No state
/// of the intent guards a refund, so it is looked up before it is repeated.
fn captured<'a>(claimed: &'a Claimed, intent_id: &'a str) -> Action<'a> {
    if claimed.payment.keeps_too_much() {
        return Action::Write(Outcome::Record(Fact::RestReserved, Then::Call(claimed.call)));
    }
    let Some(refund) = &claimed.refund else {
        return match claimed.payment.refund_pending_minor {
            0 => at_rest(),
            _ => Action::Write(Outcome::Broken("what it reserved for refunds belongs to none".to_owned())),
        };
    };
    match (refund, claimed.call) {
        (Refund { reference: Some(reference), .. }, _) => Action::Call(Call::GetRefund { refund, reference }),
        (Refund { tried_at: None, .. }, _) => {
            let begun = Fact::RefundBegun { refund: refund.clone().into() };
            Action::Write(Outcome::Record(begun, Then::Call(CallStatus::NotMade)))
        }
        (_, CallStatus::NotMade) => Action::Call(Call::Refund { refund, intent_id }),
        // A list without it is no proof: an empty list does not say which intent it is about. The intent has an id, and knows how
        // much went back.
        (_, CallStatus::NotListed { .. }) => Action::Call(Call::Get { intent_id }),
        _ => Action::Call(Call::ListRefunds { refund, intent_id }),
    }
}

fn at_rest<'a>() -> Action<'a> {
    Action::Write(Outcome::Record(Fact::AtRest, Then::Release))
}

#[cfg(test)]
pub(crate) mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::CallStatus::{Answered, NotListed, NotMade, Refused, RefusedAndOpen, Unknown};
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
            unsent: false,
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
            Action::Write(Outcome::Record(Fact::AtRest, Then::Release)) => "nothing",
            Action::Write(Outcome::Record(Fact::Voided, Then::Release)) => "end",
            Action::Write(Outcome::Record(Fact::Begun(state), Then::Call(NotMade))) => state.name(),
            Action::Write(Outcome::Record(Fact::RestReserved, Then::Call(_))) => "reserve",
            Action::Write(Outcome::Record(Fact::RefundBegun { .. }, Then::Call(NotMade))) => "begin",
            Action::Write(Outcome::Broken(_)) => "broken",
            other => panic!("{other:?}"),
        }
    }

    /// For each state and what is known of its call, what is done where the goal is AUTHORIZED, CAPTURED and RELEASED.
    #[test]
    fn every_state_and_goal_has_an_action() {
        let table = [
            (Pending, Unknown, ["AUTHORIZING", "AUTHORIZING", "end"]),
            (Authorizing, NotMade, ["confirm", "confirm", "cancel"]),
            (Authorizing, Unknown, ["get", "get", "get"]),
            (Authorizing, Answered, ["get", "get", "get"]),
            (Authorizing, Refused("CODE"), ["get", "get", "get"]),
            (Authorizing, RefusedAndOpen("CODE"), ["cancel", "cancel", "cancel"]),
            (Authorized, Unknown, ["nothing", "CAPTURING", "VOIDING"]),
            (Capturing, NotMade, ["capture", "capture", "VOIDING"]),
            (Capturing, Unknown, ["get", "get", "get"]),
            (Capturing, Refused("CODE"), ["get", "get", "get"]),
            (Capturing, RefusedAndOpen("CODE"), ["cancel", "cancel", "cancel"]),
            (Voiding, NotMade, ["cancel", "cancel", "cancel"]),
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
            (Authorizing, NotMade, ["create", "create", "end"]),
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

    /// Refunds are asked for whatever the goal is; of an order that ended, the rest is reserved first, unless that is of no use.
    #[test]
    fn a_pending_refund_is_looked_up_before_it_is_repeated() {
        let table = [
            (Unknown, false, None, "begin"),
            (NotMade, false, None, "begin"),
            (NotMade, true, None, "refund"),
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
