//! A peer that only fails is left alone for a moment: nobody waits for what is known to be away, and what comes back is not
//! met by everybody at once. One call a second then finds out whether it is back.
//!
//! What a caller does to itself says nothing about a peer: a call that was dropped, or that ended by a deadline in which no
//! peer could be expected to answer, counts neither way. Otherwise one impatient customer could take a peer from all others.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::boot::metrics::{self, Of};

/// How many failures in a row it takes.
const FAILURES: u32 = 10;
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// A peer that was silent for so long has failed, whoever set the deadline. It is a hundred times what an answer usually takes,
/// so that a peer that is merely busy is not blamed, and a tenth of the deadline of callers that set none, so that a peer that
/// hangs is found out by them.
pub(crate) const FAIR_TIME: Duration = Duration::from_millis(500);

static OPEN: LazyLock<Family<Of, Gauge>> =
    LazyLock::new(|| metrics::register("breaker_open", "Whether a peer is being left alone", Family::default()));
static REFUSED: LazyLock<Family<Of, Counter>> = LazyLock::new(|| {
    metrics::register("breaker_refused", "Calls that were not made, as their peer was left alone", Family::default())
});

#[derive(Debug, thiserror::Error)]
#[error("it fails each time, and is left alone")]
pub struct LeftAlone;

/// What is known of one peer.
#[derive(Debug)]
pub struct Breaker {
    peer: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// The next call to find out whether the peer is back is made then.
    Open {
        until: Instant,
    },
}

impl Breaker {
    pub fn new(peer: &'static str) -> Arc<Self> {
        Arc::new(Self { peer, state: Mutex::new(State::Closed { failures: 0 }) })
    }

    /// Asks whether a call may be made whose caller waits for `patience`. While the peer is left alone, a call that gives it a
    /// fair time is the first that may find out whether it is back; others may when there was none for another second.
    pub fn begin(self: &Arc<Self>, patience: Duration) -> Result<Attempt, LeftAlone> {
        self.begin_at(Instant::now(), patience)
    }

    fn begin_at(self: &Arc<Self>, now: Instant, patience: Duration) -> Result<Attempt, LeftAlone> {
        let behind = if patience >= FAIR_TIME { Duration::ZERO } else { LEFT_ALONE };
        let mut state = self.state();
        let is_probe = match &mut *state {
            State::Closed { .. } => false,
            State::Open { until } if *until + behind <= now => {
                // The next one follows even if this one never tells how it ended.
                *until = now + LEFT_ALONE - behind;
                true
            }
            State::Open { .. } => {
                REFUSED.get_or_create(&Of::new(self.peer)).inc();
                return Err(LeftAlone);
            }
        };
        Ok(Attempt { breaker: self.clone(), is_probe, patience })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn succeeded(&self, is_probe: bool) {
        let mut state = self.state();
        match &mut *state {
            State::Closed { failures } => *failures = 0,
            State::Open { .. } if is_probe => {
                *state = State::Closed { failures: 0 };
                OPEN.get_or_create(&Of::new(self.peer)).set(0);
                tracing::info!(peer = self.peer, "it is back");
            }
            // A call that was made before: it tells of the past.
            State::Open { .. } => {}
        }
    }

    fn failed(&self, is_probe: bool, now: Instant) {
        let until = now + LEFT_ALONE;
        let mut state = self.state();
        match &mut *state {
            State::Closed { failures } if *failures + 1 < FAILURES => *failures += 1,
            State::Closed { .. } => {
                *state = State::Open { until };
                OPEN.get_or_create(&Of::new(self.peer)).set(1);
                tracing::warn!(peer = self.peer, "it fails each time, and is left alone");
            }
            State::Open { until: next } if is_probe => *next = until,
            State::Open { .. } => {}
        }
    }
}

/// A call that may be made. One that is dropped without saying how it ended counts neither way.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    breaker: Arc<Breaker>,
    is_probe: bool,
    patience: Duration,
}

impl Attempt {
    /// The peer answered, whatever it said.
    pub fn succeeded(self) {
        self.breaker.succeeded(self.is_probe);
    }

    /// The peer cannot be reached, or said that it cannot answer.
    pub fn failed(self) {
        self.breaker.failed(self.is_probe, Instant::now());
    }

    /// The peer did not answer within the time that its caller gave it.
    pub fn timed_out(self) {
        if self.patience >= FAIR_TIME {
            self.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_SHORT: Duration = FAIR_TIME.saturating_sub(Duration::from_millis(1));

    fn begin(breaker: &Arc<Breaker>, now: Instant) -> Attempt {
        breaker.begin_at(now, FAIR_TIME).expect("it is not left alone")
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant) {
        breaker.failed(begin(breaker, now).is_probe, now);
    }

    fn is_left_alone(breaker: &Arc<Breaker>, now: Instant) -> bool {
        breaker.begin_at(now, Duration::MAX).is_err()
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_call_a_second_finds_out_whether_it_may_close() {
        let (breaker, now) = (Breaker::new("test"), Instant::now());
        for _ in 0..FAILURES * 3 {
            fail(&breaker, now);
            begin(&breaker, now).succeeded();
        }
        let (late_failure, late_success) = (begin(&breaker, now), begin(&breaker, now));
        for _ in 0..FAILURES {
            fail(&breaker, now);
        }
        assert!(is_left_alone(&breaker, now));
        late_failure.failed();
        late_success.succeeded();
        assert!(is_left_alone(&breaker, now), "calls that were made before tell nothing");

        let later = now + LEFT_ALONE;
        let probe = begin(&breaker, later);
        assert!(is_left_alone(&breaker, later), "one at a time");
        breaker.failed(probe.is_probe, later);
        assert!(is_left_alone(&breaker, later));
        begin(&breaker, later + LEFT_ALONE).succeeded();
        for _ in 1..FAILURES {
            fail(&breaker, later);
        }
        begin(&breaker, later).succeeded();
    }

    #[test]
    fn what_callers_do_to_themselves_counts_neither_way() {
        let (breaker, now) = (Breaker::new("test"), Instant::now());
        for _ in 1..FAILURES {
            fail(&breaker, now);
        }
        for _ in 0..FAILURES * 3 {
            breaker.begin_at(now, TOO_SHORT).expect("it is asked").timed_out();
            drop(begin(&breaker, now));
        }
        begin(&breaker, now).timed_out();
        assert!(is_left_alone(&breaker, now), "the last call gave a fair time, and the failures before still count");
    }

    #[test]
    fn short_calls_do_not_take_the_place_of_a_probe_and_none_is_waited_for() {
        let (breaker, now) = (Breaker::new("test"), Instant::now());
        for _ in 0..FAILURES {
            fail(&breaker, now);
        }
        let second = |count| now + LEFT_ALONE * count;
        breaker.begin_at(second(1), TOO_SHORT).expect_err("it may not be able to tell");
        drop(begin(&breaker, second(1)));
        assert!(is_left_alone(&breaker, second(1)), "still one a second");
        breaker.begin_at(second(3), TOO_SHORT).expect("nobody else asked for a second").timed_out();
        breaker.begin_at(second(3), TOO_SHORT).expect_err("one a second of these, too");
        let endless = begin(&breaker, second(3));
        begin(&breaker, second(4)).succeeded();
        begin(&breaker, second(4)).succeeded();
        endless.failed();
        begin(&breaker, second(4)).succeeded();
    }
}
