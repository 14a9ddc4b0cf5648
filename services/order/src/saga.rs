//! What an order does about what it hears. Pure: no clock, no database, no Kafka; the test walks every pair.

use crate::fact::Fact;
use crate::ids::PaymentId;
use crate::state::State;

/// What inventory and payment say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    StockReserved,
    StockRejected {
        reason: String,
        skus: Vec<String>,
    },
    StockSold,
    /// What was held or sold went back.
    StockReleased,
    PaymentAuthorized {
        payment_id: PaymentId,
    },
    PaymentDeclined {
        reason: String,
    },
    PaymentCaptured {
        payment_id: PaymentId,
        minor: i64,
    },
    /// Of another amount than the order's total, such as a part that was captured at the provider itself.
    PaymentCapturedInPart,
    PaymentCaptureFailed {
        reason: String,
    },
    PaymentVoided,
    PaymentRefunded {
        payment_id: PaymentId,
        minor: i64,
    },
    PaymentRefundFailed {
        payment_id: PaymentId,
        minor: i64,
        reason: String,
    },
}

impl Heard {
    /// What it means for an order of this total, in minor units.
    pub(crate) fn by_order_of(self, total_minor: i64) -> Self {
        match self {
            Self::PaymentCaptured { minor, .. } if minor != total_minor => Self::PaymentCapturedInPart,
            heard => heard,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    Record(Fact),
    /// Heard again, or too late: whoever holds something for this order lets go when it hears how the order ended.
    Ignore,
    /// Nobody should have said this now.
    Impossible,
}

pub(crate) fn decide(state: State, heard: &Heard) -> Decision {
    use State::{Cancelled, Confirmed, Expired, Fulfilled, PaymentFailed, Pending, Rejected, Reserved};
    match (state, heard.clone()) {
        (Pending, Heard::StockReserved) => Decision::Record(Fact::Reserved),
        (Pending, Heard::StockRejected { reason, skus }) => Decision::Record(Fact::Rejected { reason, skus }),
        (Reserved, Heard::PaymentAuthorized { payment_id }) => Decision::Record(Fact::Confirmed { payment_id }),
        (Reserved, Heard::PaymentDeclined { reason }) => Decision::Record(Fact::PaymentFailed { reason }),
        (Confirmed, Heard::PaymentCaptured { payment_id, .. }) => Decision::Record(Fact::Paid { payment_id }),
        // The order is not paid for: it ends, and what was captured goes back.
        (Confirmed, Heard::PaymentCapturedInPart) => {
            Decision::Record(Fact::PaymentFailed { reason: "CAPTURED_IN_PART".to_owned() })
        }
        (Confirmed, Heard::PaymentCaptureFailed { reason }) => Decision::Record(Fact::PaymentFailed { reason }),
        // A fact that changes no state, but belongs to the story.
        (Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired, Heard::PaymentRefunded { payment_id, minor }) => {
            Decision::Record(Fact::Refunded { payment_id, minor })
        }
        (
            Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired,
            Heard::PaymentRefundFailed { payment_id, minor, reason },
        ) => Decision::Record(Fact::RefundFailed { payment_id, minor, reason }),

        (Reserved | Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired, Heard::StockReserved) => {
            Decision::Ignore
        }
        (Rejected | Cancelled | Expired, Heard::StockRejected { .. }) => Decision::Ignore,
        (Confirmed | Fulfilled | PaymentFailed | Cancelled, Heard::StockSold) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, Heard::StockReleased) => Decision::Ignore,
        (Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired, Heard::PaymentAuthorized { .. }) => {
            Decision::Ignore
        }
        (PaymentFailed | Cancelled | Expired, Heard::PaymentDeclined { .. }) => Decision::Ignore,
        (Fulfilled | Cancelled | Expired, Heard::PaymentCaptured { .. }) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, Heard::PaymentCapturedInPart) => Decision::Ignore,
        // Of an expired order, too: the provider may let go of what it held while the order expires.
        (PaymentFailed | Cancelled | Expired, Heard::PaymentCaptureFailed { .. }) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, Heard::PaymentVoided) => Decision::Ignore,

        _ => Decision::Impossible,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn all_heard() -> [Heard; 12] {
        let payment_id = PaymentId(Uuid::from_u128(7));
        let reason = || "CARD_DECLINED".to_owned();
        [
            Heard::StockReserved,
            Heard::StockRejected { reason: "STOCK_SHORT".to_owned(), skus: vec!["MUG".to_owned()] },
            Heard::StockSold,
            Heard::StockReleased,
            Heard::PaymentAuthorized { payment_id },
            Heard::PaymentDeclined { reason: reason() },
            Heard::PaymentCaptured { payment_id, minor: 100 },
            Heard::PaymentCapturedInPart,
            Heard::PaymentCaptureFailed { reason: reason() },
            Heard::PaymentVoided,
            Heard::PaymentRefunded { payment_id, minor: 100 },
            Heard::PaymentRefundFailed { payment_id, minor: 100, reason: "unknown".to_owned() },
        ]
    }

    /// A row for each state, a column for each thing heard in the order above: R is recorded, i ignored, x impossible.
    #[test]
    fn every_pair_is_decided() {
        let table = [
            (State::Pending, "RRxxxxxxxxxx"),
            (State::Reserved, "ixxxRRxxxxxx"),
            (State::Confirmed, "ixixixRRRxRR"),
            (State::Fulfilled, "ixixixixxxRR"),
            (State::Rejected, "xixxxxxxxxxx"),
            (State::PaymentFailed, "ixiiiixiiiRR"),
            (State::Cancelled, "iiiiiiiiiiRR"),
            (State::Expired, "iixiiiiiiiRR"),
        ];
        assert_eq!(table.map(|(state, _)| state), State::ALL);
        for (state, row) in table {
            let decided: String = all_heard()
                .iter()
                .map(|heard| match decide(state, heard) {
                    Decision::Record(_) => 'R',
                    Decision::Ignore => 'i',
                    Decision::Impossible => 'x',
                })
                .collect();
            assert_eq!(decided, row, "{state:?}");
        }
    }

    #[test]
    fn only_a_capture_of_the_total_pays_for_an_order() {
        let captured = |minor| Heard::PaymentCaptured { payment_id: PaymentId(Uuid::from_u128(7)), minor };
        assert_eq!(captured(2_500).by_order_of(2_500), captured(2_500));
        for minor in [1, 2_499, 2_501] {
            assert_eq!(captured(minor).by_order_of(2_500), Heard::PaymentCapturedInPart);
        }
    }

    /// What the saga wants recorded is always a legal step.
    #[test]
    fn what_is_recorded_is_legal() {
        for state in State::ALL {
            for heard in all_heard() {
                if let Decision::Record(fact) = decide(state, &heard) {
                    assert!(state.after(&fact).is_some(), "{state:?} {fact:?}");
                }
            }
        }
    }
}
