//! What to do next about a payment. Pure: the test walks every pair of goal and state.

use chassis::Unexpected;
use contracts::souk::payment::v1::PaymentState;

/// What the order wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Authorized,
    Captured,
    /// Nothing held, nothing kept.
    Released,
}

/// What the provider said last. A state that ends in ING: a call was begun, and its end is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Authorizing,
    Authorized,
    Capturing,
    Captured,
    Voiding,
    Voided,
    Declined,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Authorize,
    Capture,
    Void,
    /// Give back what is reserved for a refund, or all that is kept although nothing should be.
    Refund,
    /// Let go of a payment that nobody began.
    Drop,
    /// Ask the provider how the call that was begun has ended.
    LookUp,
    Nothing,
}

/// What is left of what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// A refund is open.
    Open,
    Kept,
    /// The provider does not give it back.
    Refused,
    Nothing,
}

pub(crate) fn next(goal: Goal, state: State, rest: Rest) -> Action {
    match (goal, state) {
        (_, State::Captured) if rest == Rest::Open => Action::Refund,
        (Goal::Released, State::Captured) if matches!(rest, Rest::Nothing | Rest::Refused) => Action::Nothing,
        (_, State::Authorizing | State::Capturing | State::Voiding) => Action::LookUp,
        (Goal::Authorized | Goal::Captured, State::Pending) => Action::Authorize,
        (Goal::Captured, State::Authorized) => Action::Capture,
        (Goal::Released, State::Pending) => Action::Drop,
        (Goal::Released, State::Authorized) => Action::Void,
        (Goal::Released, State::Captured) => Action::Refund,
        (Goal::Authorized, State::Authorized | State::Captured) | (Goal::Captured, State::Captured) => Action::Nothing,
        (_, State::Voided | State::Declined | State::Failed) => Action::Nothing,
    }
}

impl State {
    pub(crate) const ALL: [Self; 9] = [
        Self::Pending,
        Self::Authorizing,
        Self::Authorized,
        Self::Capturing,
        Self::Captured,
        Self::Voiding,
        Self::Voided,
        Self::Declined,
        Self::Failed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Authorizing => "AUTHORIZING",
            Self::Authorized => "AUTHORIZED",
            Self::Capturing => "CAPTURING",
            Self::Captured => "CAPTURED",
            Self::Voiding => "VOIDING",
            Self::Voided => "VOIDED",
            Self::Declined => "DECLINED",
            Self::Failed => "FAILED",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Unexpected> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Unexpected::Broken(format!("{name} is no state of a payment")))
    }

    pub(crate) fn to_proto(self) -> PaymentState {
        match self {
            Self::Pending => PaymentState::Pending,
            Self::Authorizing => PaymentState::Authorizing,
            Self::Authorized => PaymentState::Authorized,
            Self::Capturing => PaymentState::Capturing,
            Self::Captured => PaymentState::Captured,
            Self::Voiding => PaymentState::Voiding,
            Self::Voided => PaymentState::Voided,
            Self::Declined => PaymentState::Declined,
            Self::Failed => PaymentState::Failed,
        }
    }

    /// Whether a payment may go from here to there. Whatever wants to change a state comes through this.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use State::{Authorized, Authorizing, Captured, Capturing, Declined, Failed, Pending, Voided, Voiding};
        matches!(
            (self, next),
            (Pending, Authorizing | Voided)
                | (Authorizing, Authorized | Declined | Voided)
                // The provider let go of what it held.
                | (Authorized, Capturing | Voiding | Failed)
                // The lookup found that the call never happened, and the goal is another one now.
                | (Capturing, Captured | Failed | Voiding)
                // It was captured before the void arrived.
                | (Voiding, Voided | Captured)
        )
    }
}

impl Goal {
    pub(crate) fn parse(name: &str) -> Result<Self, Unexpected> {
        match name {
            "AUTHORIZED" => Ok(Self::Authorized),
            "CAPTURED" => Ok(Self::Captured),
            "RELEASED" => Ok(Self::Released),
            _ => Err(Unexpected::Broken(format!("{name} is no goal of a payment"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_a_next_step() {
        use Action::{Authorize, Capture, Drop, LookUp, Nothing, Refund, Void};
        let table = [
            (State::Pending, [Authorize, Authorize, Drop]),
            (State::Authorizing, [LookUp, LookUp, LookUp]),
            (State::Authorized, [Nothing, Capture, Void]),
            (State::Capturing, [LookUp, LookUp, LookUp]),
            (State::Captured, [Nothing, Nothing, Refund]),
            (State::Voiding, [LookUp, LookUp, LookUp]),
            (State::Voided, [Nothing, Nothing, Nothing]),
            (State::Declined, [Nothing, Nothing, Nothing]),
            (State::Failed, [Nothing, Nothing, Nothing]),
        ];
        assert_eq!(table.map(|(state, _)| state), State::ALL);
        for (state, actions) in table {
            for (goal, action) in [Goal::Authorized, Goal::Captured, Goal::Released].into_iter().zip(actions) {
                assert_eq!(next(goal, state, Rest::Kept), action, "{goal:?} {state:?}");
            }
        }
    }

    #[test]
    fn what_is_captured_is_given_back_as_far_as_it_is_asked_for() {
        for goal in [Goal::Authorized, Goal::Captured, Goal::Released] {
            assert_eq!(next(goal, State::Captured, Rest::Open), Action::Refund, "{goal:?}");
            assert_eq!(next(goal, State::Captured, Rest::Nothing), Action::Nothing, "{goal:?}");
            assert_eq!(next(goal, State::Captured, Rest::Refused), Action::Nothing, "{goal:?}");
        }
    }
}
