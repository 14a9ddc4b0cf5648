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

/// `known`: the state, and the version of the order that led to it. `version`: the order's with what was heard, as an event
/// or as an answer of the order service, which may be ahead of the events.
pub(crate) fn decide(known: Option<(State, i64)>, heard: Heard, version: i64) -> Decision {
    use State::{Held, Rejected, Released, Returned, Sold};
    if known.is_some_and(|(_, known)| version <= known) {
        return Decision::Ignore;
    }
    match (known.map(|(state, _)| state), heard) {
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
        assert_eq!(table[1..].iter().filter_map(|(state, _)| *state).collect::<Vec<_>>(), State::ALL);
        for (state, decisions) in table {
            for (heard, expected) in [Heard::Placed, Heard::Confirmed, Heard::Ended].into_iter().zip(decisions) {
                let known = state.map(|state| (state, 1));
                assert_eq!(decide(known, heard, 2), expected, "{state:?} {heard:?}");
                if known.is_some() {
                    assert_eq!(decide(known, heard, 1), Ignore, "{state:?} {heard:?} again");
                }
            }
        }
    }

    /// What one order tells, by version: Kafka repeats events from any point on, and the order service may be asked at any
    /// time about a hold that exists.
    struct Story {
        has_stock: bool,
        events: &'static [(i64, Heard)],
        /// How the order stands at a version: other events than these move it on, too.
        answers: &'static [(i64, Heard)],
    }

    impl Story {
        /// Everything that may come next, from every state that can be reached. The states that were.
        fn walk(&self) -> Vec<Option<State>> {
            let (mut seen, mut open) = (vec![], vec![(None, 0)]);
            while let Some((known, told)) = open.pop() {
                if seen.contains(&(known, told)) {
                    continue;
                }
                seen.push((known, told));
                let events = self.events.iter().take(told + 1).enumerate().map(|(at, event)| (event, told.max(at + 1)));
                let answers = self.answers.iter().filter(|_| known.is_some()).map(|answer| (answer, told));
                for ((version, heard), told) in events.chain(answers) {
                    let state = match decide(known, *heard, *version) {
                        Decision::Hold if self.has_stock => State::Held,
                        Decision::Hold => State::Rejected,
                        Decision::Sell => State::Sold,
                        Decision::Release | Decision::Bar => State::Released,
                        Decision::TakeBack => State::Returned,
                        Decision::Ignore => {
                            open.push((known, told));
                            continue;
                        }
                        Decision::Impossible => panic!("{known:?} hears {heard:?} at {version}, after {told} events"),
                    };
                    let before = known.map(|(state, _): (State, i64)| state);
                    assert!(before.map_or(state.is_first(), |before| before.may_become(state)), "{before:?} {state:?}");
                    open.push((Some((state, *version)), told));
                }
            }
            let states: Vec<_> = seen.iter().map(|(known, _)| known.map(|(state, _)| state)).collect();
            State::ALL.into_iter().map(Some).filter(|state| states.contains(state)).collect()
        }
    }

    /// Version 2 is that the order heard of its stock, 4 that it was paid, 6 that money went back.
    #[test]
    fn no_legal_story_is_a_dead_letter() {
        use Heard::{Confirmed, Ended, Placed};
        use State::{Held, Rejected, Released, Returned, Sold};
        let story = |has_stock, events, answers| Story { has_stock, events, answers }.walk();
        let states = |states: &[State]| states.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(story(true, &[(1, Placed)], &[]), states(&[Held]));
        assert_eq!(story(true, &[(1, Placed), (2, Ended)], &[(2, Ended)]), states(&[Held, Released]));
        assert_eq!(story(true, &[(1, Placed), (3, Ended)], &[(3, Ended), (6, Ended)]), states(&[Held, Released]));
        let sold = story(true, &[(1, Placed), (3, Confirmed)], &[(3, Confirmed), (4, Confirmed)]);
        assert_eq!(sold, states(&[Held, Sold]));
        let returned = story(
            true,
            &[(1, Placed), (3, Confirmed), (5, Ended)],
            &[(3, Confirmed), (4, Confirmed), (5, Ended), (6, Ended)],
        );
        assert_eq!(returned, states(&[Held, Sold, Released, Returned]));
        // The order that is told of its shortage ends by that, or had ended before.
        assert_eq!(story(false, &[(1, Placed)], &[(2, Ended)]), states(&[Rejected]));
        assert_eq!(story(false, &[(1, Placed), (2, Ended)], &[(2, Ended)]), states(&[Rejected]));
        // The event that placed it was discarded from the dead letters.
        assert_eq!(story(true, &[(2, Ended)], &[]), states(&[Released]));
    }
}
