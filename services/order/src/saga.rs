//! What an order does about an event of inventory or payment. Pure: no clock, no database, no Kafka; the test walks every pair.

use crate::fact::Fact;
use crate::ids::PaymentId;
use crate::state::State;

/// An event of inventory or payment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PeerEvent {
    StockReserved,
    StockRejected {
        reason: String,
        skus: Vec<String>,
    },
    StockSold,
    /// Held units were released, or sold ones returned.
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

impl PeerEvent {
    /// What it means for an order of this total, in minor units.
    pub(crate) fn for_total(self, total_minor: i64) -> Self {
        match self {
            Self::PaymentCaptured { minor, .. } if minor != total_minor => Self::PaymentCapturedInPart,
            event => event,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    Record(Fact),
    /// A repeat, or too late: inventory and payment release what they hold when they consume how the order ended.
    Ignore,
    /// A correct peer never publishes this in this state: the event becomes a dead letter.
    Contradiction,
}

pub(crate) fn decide(state: State, event: &PeerEvent) -> Decision {
    use State::{Cancelled, Confirmed, Expired, Fulfilled, PaymentFailed, Pending, Rejected, Reserved};
    match (state, event.clone()) {
        (Pending, PeerEvent::StockReserved) => Decision::Record(Fact::Reserved),
        (Pending, PeerEvent::StockRejected { reason, skus }) => Decision::Record(Fact::Rejected { reason, skus }),
        (Reserved, PeerEvent::PaymentAuthorized { payment_id }) => Decision::Record(Fact::Confirmed { payment_id }),
        (Reserved, PeerEvent::PaymentDeclined { reason }) => Decision::Record(Fact::PaymentFailed { reason }),
        (Confirmed, PeerEvent::PaymentCaptured { payment_id, .. }) => Decision::Record(Fact::Paid { payment_id }),
        // The order is not paid for: it ends, and the captured part is refunded.
        (Confirmed, PeerEvent::PaymentCapturedInPart) => {
            Decision::Record(Fact::PaymentFailed { reason: "CAPTURED_IN_PART".to_owned() })
        }
        (Confirmed, PeerEvent::PaymentCaptureFailed { reason }) => Decision::Record(Fact::PaymentFailed { reason }),
        // These change no state, but are part of the order's history.
        (
            Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired,
            PeerEvent::PaymentRefunded { payment_id, minor },
        ) => Decision::Record(Fact::Refunded { payment_id, minor }),
        (
            Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired,
            PeerEvent::PaymentRefundFailed { payment_id, minor, reason },
        ) => Decision::Record(Fact::RefundFailed { payment_id, minor, reason }),

        (Reserved | Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired, PeerEvent::StockReserved) => {
            Decision::Ignore
        }
        (Rejected | Cancelled | Expired, PeerEvent::StockRejected { .. }) => Decision::Ignore,
        (Confirmed | Fulfilled | PaymentFailed | Cancelled, PeerEvent::StockSold) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, PeerEvent::StockReleased) => Decision::Ignore,
        (Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired, PeerEvent::PaymentAuthorized { .. }) => {
            Decision::Ignore
        }
        (PaymentFailed | Cancelled | Expired, PeerEvent::PaymentDeclined { .. }) => Decision::Ignore,
        (Fulfilled | Cancelled | Expired, PeerEvent::PaymentCaptured { .. }) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, PeerEvent::PaymentCapturedInPart) => Decision::Ignore,
        // Of an expired order, too: the provider may release an authorization while the order expires.
        (PaymentFailed | Cancelled | Expired, PeerEvent::PaymentCaptureFailed { .. }) => Decision::Ignore,
        (PaymentFailed | Cancelled | Expired, PeerEvent::PaymentVoided) => Decision::Ignore,

        _ => Decision::Contradiction,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn all_events() -> [PeerEvent; 12] {
        let payment_id = PaymentId::new(Uuid::from_u128(7));
        let reason = || "CARD_DECLINED".to_owned();
        [
            PeerEvent::StockReserved,
            PeerEvent::StockRejected { reason: "STOCK_SHORT".to_owned(), skus: vec!["MUG".to_owned()] },
            PeerEvent::StockSold,
            PeerEvent::StockReleased,
            PeerEvent::PaymentAuthorized { payment_id },
            PeerEvent::PaymentDeclined { reason: reason() },
            PeerEvent::PaymentCaptured { payment_id, minor: 100 },
            PeerEvent::PaymentCapturedInPart,
            PeerEvent::PaymentCaptureFailed { reason: reason() },
            PeerEvent::PaymentVoided,
            PeerEvent::PaymentRefunded { payment_id, minor: 100 },
            PeerEvent::PaymentRefundFailed { payment_id, minor: 100, reason: "unknown".to_owned() },
        ]
    }

    /// A row for each state, a column for each event in the order above: R is recorded, i ignored, x impossible.
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
            let decided: String = all_events()
                .iter()
                .map(|event| match decide(state, event) {
                    Decision::Record(_) => 'R',
                    Decision::Ignore => 'i',
                    Decision::Contradiction => 'x',
                })
                .collect();
            assert_eq!(decided, row, "{state:?}");
        }
    }

    #[test]
    fn only_a_capture_of_the_total_pays_for_an_order() {
        let captured = |minor| PeerEvent::PaymentCaptured { payment_id: PaymentId::new(Uuid::from_u128(7)), minor };
        assert_eq!(captured(2_500).for_total(2_500), captured(2_500));
        for minor in [1, 2_499, 2_501] {
            assert_eq!(captured(minor).for_total(2_500), PeerEvent::PaymentCapturedInPart);
        }
    }

    /// What the saga wants recorded is always a legal step.
    #[test]
    fn what_is_recorded_is_legal() {
        for state in State::ALL {
            for event in all_events() {
                if let Decision::Record(fact) = decide(state, &event) {
                    assert!(state.after(&fact).is_some(), "{state:?} {fact:?}");
                }
            }
        }
    }
}
