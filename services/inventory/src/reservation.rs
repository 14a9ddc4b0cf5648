//! What becomes of a reservation. Pure: the test walks every pair of state and news.

use chassis::Unexpected;
use contracts::souk::inventory::v1::ReservationState;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Sold,
    Released,
    Returned,
    Rejected,
}

/// What an order's event means for its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Placed,
    Confirmed,
    /// Whatever ended it: cancelled, expired, not paid for.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Hold all lines, or reject.
    Hold,
    Sell,
    Release,
    TakeBack,
    /// The end came before anything was held: remember that, so that nothing ever will be.
    Bar,
    Ignore,
    Impossible,
}

pub(crate) fn decide(state: Option<State>, heard: Heard) -> Decision {
    use State::{Held, Rejected, Released, Returned, Sold};
    match (state, heard) {
        (None, Heard::Placed) => Decision::Hold,
        (Some(Held), Heard::Confirmed) => Decision::Sell,
        (Some(Held), Heard::Ended) => Decision::Release,
        (Some(Sold), Heard::Ended) => Decision::TakeBack,
        (None, Heard::Ended) => Decision::Bar,
        // Heard again, or the end of what holds nothing.
        (Some(_), Heard::Placed) | (Some(Sold), Heard::Confirmed) => Decision::Ignore,
        (Some(Released | Returned | Rejected), Heard::Ended) => Decision::Ignore,
        // An order is confirmed only after it was told that its goods are held, and never after its end.
        (None | Some(Released | Returned | Rejected), Heard::Confirmed) => Decision::Impossible,
    }
}

impl State {
    pub(crate) const ALL: [Self; 5] = [Self::Held, Self::Sold, Self::Released, Self::Returned, Self::Rejected];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Sold => "SOLD",
            Self::Released => "RELEASED",
            Self::Returned => "RETURNED",
            Self::Rejected => "REJECTED",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Unexpected> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Unexpected::Broken(format!("{name} is no state of a reservation")))
    }

    /// Whether a reservation may begin so.
    pub(crate) fn is_first(self) -> bool {
        // Released: the end of the order came before its beginning.
        matches!(self, Self::Held | Self::Released | Self::Rejected)
    }

    /// Whether a reservation may go from here to there.
    pub(crate) fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Held, Self::Sold | Self::Released) | (Self::Sold, Self::Returned))
    }

    pub(crate) fn to_proto(self) -> ReservationState {
        match self {
            Self::Held => ReservationState::Held,
            Self::Sold => ReservationState::Sold,
            Self::Released => ReservationState::Released,
            Self::Returned => ReservationState::Returned,
            Self::Rejected => ReservationState::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_steps_are_legal_and_no_others() {
        let mut legal = vec![];
        for from in State::ALL {
            legal.extend(State::ALL.into_iter().filter(|to| from.may_become(*to)).map(|to| (from, to)));
        }
        assert_eq!(legal, [(State::Held, State::Sold), (State::Held, State::Released), (State::Sold, State::Returned)]);
    }

    #[test]
    fn every_pair_is_decided() {
        use Decision::{Bar, Hold, Ignore, Impossible, Release, Sell, TakeBack};
        let table = [
            (None, [Hold, Impossible, Bar]),
            (Some(State::Held), [Ignore, Sell, Release]),
            (Some(State::Sold), [Ignore, Ignore, TakeBack]),
            (Some(State::Released), [Ignore, Impossible, Ignore]),
            (Some(State::Returned), [Ignore, Impossible, Ignore]),
            (Some(State::Rejected), [Ignore, Impossible, Ignore]),
        ];
        for (state, decisions) in table {
            for (heard, expected) in [Heard::Placed, Heard::Confirmed, Heard::Ended].into_iter().zip(decisions) {
                assert_eq!(decide(state, heard), expected, "{state:?} {heard:?}");
            }
        }
    }
}
