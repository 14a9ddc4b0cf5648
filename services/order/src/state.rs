//! The states of an order, and which facts are legal in each.

use contracts::souk::order::v1::OrderState;

use crate::fact::Fact;

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Pending,
    Reserved,
    Confirmed,
    Fulfilled,
    Rejected,
    PaymentFailed,
    Cancelled,
    Expired,
}

impl State {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Pending,
        Self::Reserved,
        Self::Confirmed,
        Self::Fulfilled,
        Self::Rejected,
        Self::PaymentFailed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Such as `PAYMENT_FAILED`, in the table, in errors and in the contract.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("ORDER_STATE_")
    }

    pub(crate) fn to_proto(self) -> OrderState {
        match self {
            Self::Pending => OrderState::Pending,
            Self::Reserved => OrderState::Reserved,
            Self::Confirmed => OrderState::Confirmed,
            Self::Fulfilled => OrderState::Fulfilled,
            Self::Rejected => OrderState::Rejected,
            Self::PaymentFailed => OrderState::PaymentFailed,
            Self::Cancelled => OrderState::Cancelled,
            Self::Expired => OrderState::Expired,
        }
    }

    pub(crate) fn of_proto(state: OrderState) -> Option<Self> {
        Some(match state {
            OrderState::Unspecified => return None,
            OrderState::Pending => Self::Pending,
            OrderState::Reserved => Self::Reserved,
            OrderState::Confirmed => Self::Confirmed,
            OrderState::Fulfilled => Self::Fulfilled,
            OrderState::Rejected => Self::Rejected,
            OrderState::PaymentFailed => Self::PaymentFailed,
            OrderState::Cancelled => Self::Cancelled,
            OrderState::Expired => Self::Expired,
        })
    }

    /// Whether the order is over, but for returns and refunds.
    pub(crate) fn has_ended(self) -> bool {
        match self {
            Self::Pending | Self::Reserved | Self::Confirmed => false,
            Self::Fulfilled | Self::Rejected | Self::PaymentFailed | Self::Cancelled | Self::Expired => true,
        }
    }

    /// Where a fact leads from here; none if it is not legal. Every change of an order passes here.
    pub(crate) fn after(self, fact: &Fact) -> Option<Self> {
        use State::{Cancelled, Confirmed, Expired, Fulfilled, PaymentFailed, Pending, Rejected, Reserved};
        match (self, fact) {
            (Pending, Fact::Reserved) => Some(Reserved),
            (Pending, Fact::Rejected { .. }) => Some(Rejected),
            (Reserved, Fact::Confirmed { .. }) => Some(Confirmed),
            (Reserved | Confirmed, Fact::PaymentFailed { .. }) => Some(PaymentFailed),
            (Confirmed, Fact::Paid { .. }) => Some(Confirmed),
            (Confirmed, Fact::PartlyFulfilled(_)) => Some(Confirmed),
            (Confirmed, Fact::Fulfilled(_)) => Some(Fulfilled),
            (Confirmed | Fulfilled, Fact::ItemsReturned(_)) => Some(self),
            (Pending | Reserved | Confirmed, Fact::Cancelled { .. }) => Some(Cancelled),
            (Pending | Reserved, Fact::Expired) => Some(Expired),
            (
                Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired,
                Fact::Refunded { .. } | Fact::RefundFailed { .. },
            ) => Some(self),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use contracts::souk::order::v1::CancelReason;
    use uuid::Uuid;

    use super::*;
    use crate::ids::PaymentId;
    use crate::parcel::Parcel;

    /// A row for each state, a column for each fact in the order below: the state after it, or a dot where it is illegal.
    #[test]
    fn these_steps_are_legal_and_no_others() {
        let (payment_id, text) = (PaymentId::new(Uuid::from_u128(7)), String::new);
        let facts = [
            Fact::Reserved,
            Fact::Rejected { reason: text(), skus: vec![] },
            Fact::Confirmed { payment_id },
            Fact::Paid { payment_id },
            Fact::PaymentFailed { reason: text() },
            Fact::PartlyFulfilled(Parcel::default()),
            Fact::Fulfilled(Parcel::default()),
            Fact::ItemsReturned(vec![]),
            Fact::Cancelled { reason: CancelReason::CustomerRequest },
            Fact::Expired,
            Fact::Refunded { payment_id, minor: 1 },
            Fact::RefundFailed { payment_id, minor: 1, reason: text() },
        ];
        let table = [
            "RESERVED REJECTED . . . . . . CANCELLED EXPIRED . .",
            ". . CONFIRMED . PAYMENT_FAILED . . . CANCELLED EXPIRED . .",
            ". . . CONFIRMED PAYMENT_FAILED CONFIRMED FULFILLED CONFIRMED CANCELLED . CONFIRMED CONFIRMED",
            ". . . . . . . FULFILLED . . FULFILLED FULFILLED",
            ". . . . . . . . . . . .",
            ". . . . . . . . . . PAYMENT_FAILED PAYMENT_FAILED",
            ". . . . . . . . . . CANCELLED CANCELLED",
            ". . . . . . . . . . EXPIRED EXPIRED",
        ];
        for (state, row) in State::ALL.into_iter().zip(table) {
            let after: Vec<_> = facts.iter().map(|fact| state.after(fact).map_or(".", State::name)).collect();
            assert_eq!(after.join(" "), row, "{state:?}");
        }
    }
}
