//! The goal of a payment, and its state.

use chassis::Unexpected;
use contracts::souk::payment::v1::PaymentState;

/// What the payment shall become, because of its order's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Goal {
    Authorized,
    Captured,
    /// Nothing authorized any more, and everything that was captured is refunded.
    Released,
}

/// The last recorded state at the provider. A state that ends in ING: a call was begun, and its outcome is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
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

impl Goal {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Authorized, Self::Captured, Self::Released];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authorized => "AUTHORIZED",
            Self::Captured => "CAPTURED",
            Self::Released => "RELEASED",
        }
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
        self.to_proto().as_str_name().trim_start_matches("PAYMENT_STATE_")
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

    /// Whether a payment may go from here to there. Every change of a state is checked by this.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use State::{Authorized, Authorizing, Captured, Capturing, Declined, Failed, Pending, Voided, Voiding};
        matches!(
            (self, next),
            (Pending, Authorizing | Voided)
                | (Authorizing, Authorized | Declined | Voided)
                // The provider released the authorization.
                | (Authorized, Capturing | Voiding | Failed)
                // The capture had no effect, and the goal changed meanwhile.
                | (Capturing, Captured | Failed | Voiding)
                // It was captured before the void arrived.
                | (Voiding, Voided | Captured)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        let text = State::ALL.map(State::name).join(" ");
        assert_eq!(text, "PENDING AUTHORIZING AUTHORIZED CAPTURING CAPTURED VOIDING VOIDED DECLINED FAILED");
        for state in State::ALL {
            assert_eq!(State::parse(state.name()).expect("a state"), state);
        }
    }
}
