//! The aggregate: what is held for an order, and how it may change. The decision is pure: its test walks every pair.

use std::collections::BTreeMap;

use chassis::Unexpected;
use contracts::souk::inventory::v1::ReservationState;
use sqlx::PgConnection;

use crate::ids::{OrderId, UserId};
use crate::stock::Line;
use crate::take_back::ReturnedUnits;

/// The default is that of an order that is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    pub(crate) user_id: Option<UserId>,
    /// None: there is no row yet.
    pub(crate) state: Option<State>,
    /// Counts its events.
    pub(crate) version: i64,
    /// The order's, when it came into this state.
    pub(crate) order_version: i64,
    /// Without the units that earlier transactions took back.
    pub(crate) lines: Vec<Line>,
    /// The units of each SKU that this transaction takes back.
    pub(crate) taken_back: BTreeMap<String, i32>,
    /// Whether this transaction inserts it.
    pub(crate) is_new: bool,
    /// Whether this transaction writes it.
    pub(crate) is_changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Held,
    Sold,
    Released,
    /// Sold, and available again because the order has ended. Units that a customer sends back leave it SOLD.
    Returned,
    Rejected,
}

/// How far an order is, as far as it matters to its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderPhase {
    Placed,
    Confirmed,
    /// Cancelled, expired, or its payment failed.
    Ended,
    /// Units that were sold come back; the order is in the same state as before.
    ItemsReturned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Record(Step),
    /// A repeat, or the end of an order for which nothing is held.
    Ignore,
    /// A correct order service never sends this in this state: the event becomes a dead letter.
    Contradiction,
}

/// What happens to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Holds all lines, or rejects the order.
    Hold,
    Sell,
    Release,
    /// What was sold is available again, as the order has ended.
    Unsell,
    /// Some of the sold units come back.
    TakeBack,
    /// The order ended before anything was held: the reservation is inserted as released, so that a late OrderPlaced holds nothing.
    Tombstone,
}

/// `known`: the state, and the version of the order that led to it. `version`: the order's in this phase, from an event or from a
/// response of the order service, which may be ahead of the events.
pub(crate) fn decide(known: Option<(State, i64)>, phase: OrderPhase, version: i64) -> Decision {
    use State::{Held, Rejected, Released, Returned, Sold};
    // A return is in no state that could be read from the order service: it is known only by its event, which the inbox admits once.
    if phase != OrderPhase::ItemsReturned && known.is_some_and(|(_, known)| version <= known) {
        return Decision::Ignore;
    }
    match (known.map(|(state, _)| state), phase) {
        (None, OrderPhase::Placed) => Decision::Record(Step::Hold),
        (Some(Held), OrderPhase::Confirmed) => Decision::Record(Step::Sell),
        (Some(Held), OrderPhase::Ended) => Decision::Record(Step::Release),
        (Some(Sold), OrderPhase::Ended) => Decision::Record(Step::Unsell),
        (None, OrderPhase::Ended) => Decision::Record(Step::Tombstone),
        (Some(_), OrderPhase::Placed) | (Some(Sold), OrderPhase::Confirmed) => Decision::Ignore,
        (Some(Released | Returned | Rejected), OrderPhase::Ended) => Decision::Ignore,
        (Some(Sold), OrderPhase::ItemsReturned) => Decision::Record(Step::TakeBack),
        (None | Some(Held | Released | Returned | Rejected), OrderPhase::ItemsReturned) => Decision::Contradiction,
        // An order is confirmed only after its stock was reserved, and never after its end.
        (None | Some(Released | Returned | Rejected), OrderPhase::Confirmed) => Decision::Contradiction,
    }
}

impl Reservation {
    /// Locks in the order of ids. Those that do not exist are left out. Reads only when it has the locks: a statement that waited
    /// for a lock sees the newest row of a reservation, but lines as they were before it waited.
    ///
    /// The limit makes Postgres expect few rows, so that it keeps a plan by the index. Otherwise it goes on reading the whole of
    /// a table that was small at first.
    pub(crate) async fn lock_all(
        tx: &mut PgConnection,
        order_ids: &[OrderId],
    ) -> Result<BTreeMap<OrderId, Self>, Unexpected> {
        sqlx::query!(
            "select
             from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
               join reservation on order_id = wanted.id
             order by order_id for update of reservation",
            order_ids as &[OrderId],
        )
        .execute(&mut *tx)
        .await?;
        let rows = sqlx::query!(
            r#"select order_id as "order_id: OrderId", user_id as "user_id: UserId", state as "state: State", version, order_version,
                 array(select sku from reservation_line as line where line.order_id = reservation.order_id order by sku)
                   as "skus!",
                 array(select quantity - returned from reservation_line as line where line.order_id = reservation.order_id order by sku)
                   as "quantities!"
               from (select id from unnest($1::uuid[]) as id limit cardinality($1)) as wanted
                 join reservation on order_id = wanted.id
               order by order_id"#,
            order_ids as &[OrderId],
        );
        let rows = rows.fetch_all(tx).await?.into_iter().map(|row| {
            let lines = row.skus.into_iter().zip(row.quantities);
            let reservation = Self {
                user_id: row.user_id,
                state: Some(row.state),
                version: row.version,
                order_version: row.order_version,
                lines: lines.map(|(sku, quantity)| Line { sku, quantity }).collect(),
                taken_back: BTreeMap::new(),
                is_new: false,
                is_changed: false,
            };
            (row.order_id, reservation)
        });
        Ok(rows.collect())
    }

    /// Units that are not taken back.
    pub(crate) fn left(&self, line: &Line) -> i32 {
        line.quantity - self.taken_back.get(&line.sku).copied().unwrap_or_default()
    }

    /// Whether the order has as many units left as these.
    pub(crate) fn has(&self, items: &[ReturnedUnits]) -> bool {
        let mut wanted = BTreeMap::<&str, i64>::new();
        for item in items {
            *wanted.entry(&item.line.sku).or_default() += i64::from(item.line.quantity);
        }
        let left = |sku: &str| self.lines.iter().find(|line| line.sku == sku).map_or(0, |line| self.left(line));
        wanted.into_iter().all(|(sku, quantity)| quantity <= i64::from(left(sku)))
    }
}

impl State {
    pub(crate) const ALL: [Self; 5] = [Self::Held, Self::Sold, Self::Released, Self::Returned, Self::Rejected];

    /// Such as `HELD`, in the table and in the contract.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("RESERVATION_STATE_")
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Unexpected> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Unexpected::Broken(format!("{name} is no state of a reservation")))
    }

    /// Whether a reservation may begin in this state.
    pub(crate) fn is_first(self) -> bool {
        // Released: the order ended before its stock was held.
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
        use Decision::{Contradiction, Ignore, Record};
        let table = [
            (None, [Record(Step::Hold), Contradiction, Record(Step::Tombstone), Contradiction]),
            (Some(State::Held), [Ignore, Record(Step::Sell), Record(Step::Release), Contradiction]),
            (Some(State::Sold), [Ignore, Ignore, Record(Step::Unsell), Record(Step::TakeBack)]),
            (Some(State::Released), [Ignore, Contradiction, Ignore, Contradiction]),
            (Some(State::Returned), [Ignore, Contradiction, Ignore, Contradiction]),
            (Some(State::Rejected), [Ignore, Contradiction, Ignore, Contradiction]),
        ];
        assert_eq!(table[1..].iter().filter_map(|(state, _)| *state).collect::<Vec<_>>(), State::ALL);
        for (state, decisions) in table {
            for (phase, expected) in
                [OrderPhase::Placed, OrderPhase::Confirmed, OrderPhase::Ended, OrderPhase::ItemsReturned]
                    .into_iter()
                    .zip(decisions)
            {
                let known = state.map(|state| (state, 1));
                assert_eq!(decide(known, phase, 2), expected, "{state:?} {phase:?}");
                // The inbox admits a return once, and the order's state does not say that there was one.
                let again = if phase == OrderPhase::ItemsReturned { expected } else { Ignore };
                if known.is_some() {
                    assert_eq!(decide(known, phase, 1), again, "{state:?} {phase:?} again");
                }
            }
        }
    }

    /// The events and responses about one order, by version: Kafka repeats events from any point on, and the order's state may be
    /// read at any time while a hold exists.
    struct Story {
        has_stock: bool,
        events: &'static [(i64, OrderPhase)],
        /// Responses of the order service: other events than these change the order's version, too.
        responses: &'static [(i64, OrderPhase)],
    }

    impl Story {
        /// Applies everything that may come next to every reachable state, and returns the states that were reached.
        fn walk(&self) -> Vec<Option<State>> {
            let (mut seen, mut open) = (vec![], vec![(None, 0)]);
            while let Some((known, delivered)) = open.pop() {
                if seen.contains(&(known, delivered)) {
                    continue;
                }
                seen.push((known, delivered));
                let events = self.events.iter().take(delivered + 1).enumerate();
                let events = events.map(|(at, event)| (event, delivered.max(at + 1)));
                let responses = self.responses.iter().filter(|_| known.is_some()).map(|response| (response, delivered));
                for ((version, phase), delivered) in events.chain(responses) {
                    let state = match decide(known, *phase, *version) {
                        Decision::Record(Step::Hold) if self.has_stock => State::Held,
                        Decision::Record(Step::Hold) => State::Rejected,
                        Decision::Record(Step::Sell | Step::TakeBack) => State::Sold,
                        Decision::Record(Step::Release | Step::Tombstone) => State::Released,
                        Decision::Record(Step::Unsell) => State::Returned,
                        Decision::Ignore => {
                            open.push((known, delivered));
                            continue;
                        }
                        Decision::Contradiction => {
                            panic!("{known:?}: {phase:?} at {version}, after {delivered} events")
                        }
                    };
                    let before = known.map(|(state, _): (State, i64)| state);
                    assert!(before.map_or(state.is_first(), |before| before.may_become(state)), "{before:?} {state:?}");
                    open.push((Some((state, *version)), delivered));
                }
            }
            let states: Vec<_> = seen.iter().map(|(known, _)| known.map(|(state, _)| state)).collect();
            State::ALL.into_iter().map(Some).filter(|state| states.contains(state)).collect()
        }
    }

    /// At version 2 the order is reserved, at 4 paid, at 6 refunded.
    #[test]
    fn no_legal_history_is_a_dead_letter() {
        use OrderPhase::{Confirmed, Ended, Placed};
        use State::{Held, Rejected, Released, Returned, Sold};
        let story = |has_stock, events, responses| Story { has_stock, events, responses }.walk();
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
        // An order ends by its shortage, or had ended before.
        assert_eq!(story(false, &[(1, Placed)], &[(2, Ended)]), states(&[Rejected]));
        assert_eq!(story(false, &[(1, Placed), (2, Ended)], &[(2, Ended)]), states(&[Rejected]));
        // The event that placed it was discarded from the dead letters.
        assert_eq!(story(true, &[(2, Ended)], &[]), states(&[Released]));
    }
}
