//! A circuit breaker: after several failures in a row, calls to a peer fail at once, so that no caller waits for a peer that is
//! down, and a peer that recovers is not overloaded at once. Then one call per second probes whether it is back.
//!
//! A call that its caller dropped, or whose deadline was too short for any peer, counts neither as a failure nor as a success.
//! Otherwise one client with short deadlines could cut off a peer for all others.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::boot::metrics::{self, ByPeer};

/// How many failures in a row open the circuit.
const FAILURES: u32 = 10;
/// How long it is open before the next probe.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// A timeout counts as a failure only if the peer had this much time. It is a hundred times what a response usually takes, so
/// that a busy peer does not count as failed, and a tenth of the default deadline, so that a peer that hangs does.
pub(crate) const FAIR_TIME: Duration = Duration::from_millis(500);

static OPEN: LazyLock<Family<ByPeer, Gauge>> =
    LazyLock::new(|| metrics::register("breaker_open", "Replicas of a peer whose circuit is open", Family::default()));
static REFUSED: LazyLock<Family<ByPeer, Counter>> = LazyLock::new(|| {
    metrics::register("breaker_refused", "Calls that were not made, as the circuit was open", Family::default())
});

#[derive(Debug, thiserror::Error)]
#[error("the circuit is open, as calls failed repeatedly")]
pub struct CircuitOpen;

impl CircuitOpen {
    /// Counts a call that no replica's circuit admitted.
    pub(crate) fn refuse(peer: &str) -> Self {
        REFUSED.get_or_create(&ByPeer::new(peer)).inc();
        Self
    }
}

/// The circuit breaker of a peer, or of one of its replicas.
#[derive(Debug)]
pub struct Breaker {
    peer: &'static str,
    address: String,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    /// The next probe is made then.
    Open {
        until: Instant,
    },
}

impl Breaker {
    pub fn new(peer: &'static str, address: impl ToString) -> Arc<Self> {
        let address = address.to_string();
        Arc::new(Self { peer, address, state: Mutex::new(State::Closed { failures: 0 }) })
    }

    /// Admits a call whose caller waits for `timeout`. While the circuit is open, a call with a fair timeout may be the next
    /// probe; one with a shorter timeout only if there was no probe for another second.
    pub fn begin(self: &Arc<Self>, timeout: Duration) -> Result<Attempt, CircuitOpen> {
        self.try_begin(timeout).map_err(|_| CircuitOpen::refuse(self.peer))
    }

    /// The same; another replica may admit a call that is refused.
    pub(crate) fn try_begin(self: &Arc<Self>, timeout: Duration) -> Result<Attempt, CircuitOpen> {
        self.begin_at(Instant::now(), timeout)
    }

    fn begin_at(self: &Arc<Self>, now: Instant, timeout: Duration) -> Result<Attempt, CircuitOpen> {
        let delay = if timeout >= FAIR_TIME { Duration::ZERO } else { OPEN_FOR };
        let mut state = self.state();
        let is_probe = match &mut *state {
            State::Closed { .. } => false,
            State::Open { until } if *until + delay <= now => {
                // The next probe follows even if this one never reports its outcome.
                *until = now + OPEN_FOR - delay;
                true
            }
            State::Open { .. } => return Err(CircuitOpen),
        };
        Ok(Attempt { breaker: self.clone(), is_probe, timeout })
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
                OPEN.get_or_create(&ByPeer::new(self.peer)).dec();
                tracing::info!(
                    peer = self.peer,
                    address = self.address,
                    "a replica of a peer is back; its circuit is closed"
                );
            }
            // The call began before the circuit opened.
            State::Open { .. } => {}
        }
    }

    fn failed(&self, is_probe: bool, now: Instant) {
        let until = now + OPEN_FOR;
        let mut state = self.state();
        match &mut *state {
            State::Closed { failures } if *failures + 1 < FAILURES => *failures += 1,
            State::Closed { .. } => {
                *state = State::Open { until };
                OPEN.get_or_create(&ByPeer::new(self.peer)).inc();
                tracing::warn!(
                    peer = self.peer,
                    address = self.address,
                    "calls to a replica of a peer failed repeatedly; its circuit is open"
                );
            }
            State::Open { until: next } if is_probe => *next = until,
            State::Open { .. } => {}
        }
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        // The replica is gone.
        if matches!(*self.state(), State::Open { .. }) {
            OPEN.get_or_create(&ByPeer::new(self.peer)).dec();
        }
    }
}

/// An admitted call. If it is dropped without reporting its outcome, it counts neither way.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    breaker: Arc<Breaker>,
    is_probe: bool,
    timeout: Duration,
}

impl Attempt {
    /// The peer responded, also with an error.
    pub fn succeeded(self) {
        self.breaker.succeeded(self.is_probe);
    }

    /// The peer is unreachable or unavailable.
    pub fn failed(self) {
        self.breaker.failed(self.is_probe, Instant::now());
    }

    /// The peer did not respond before the caller's deadline.
    pub fn timed_out(self) {
        if self.timeout >= FAIR_TIME {
            self.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_SHORT: Duration = FAIR_TIME.saturating_sub(Duration::from_millis(1));

    fn breaker() -> Arc<Breaker> {
        Breaker::new("test", "127.0.0.1:1")
    }

    fn begin(breaker: &Arc<Breaker>, now: Instant) -> Attempt {
        breaker.begin_at(now, FAIR_TIME).expect("the circuit is closed")
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant) {
        breaker.failed(begin(breaker, now).is_probe, now);
    }

    fn is_open(breaker: &Arc<Breaker>, now: Instant) -> bool {
        breaker.begin_at(now, Duration::MAX).is_err()
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_one_probe_a_second_may_close_it() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 0..FAILURES * 3 {
            fail(&breaker, now);
            begin(&breaker, now).succeeded();
        }
        let (late_failure, late_success) = (begin(&breaker, now), begin(&breaker, now));
        for _ in 0..FAILURES {
            fail(&breaker, now);
        }
        assert!(is_open(&breaker, now));
        late_failure.failed();
        late_success.succeeded();
        assert!(is_open(&breaker, now), "calls that began before do not count");

        let later = now + OPEN_FOR;
        let probe = begin(&breaker, later);
        assert!(is_open(&breaker, later), "one at a time");
        breaker.failed(probe.is_probe, later);
        assert!(is_open(&breaker, later));
        begin(&breaker, later + OPEN_FOR).succeeded();
        for _ in 1..FAILURES {
            fail(&breaker, later);
        }
        begin(&breaker, later).succeeded();
    }

    #[test]
    fn dropped_calls_and_short_timeouts_do_not_count() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 1..FAILURES {
            fail(&breaker, now);
        }
        for _ in 0..FAILURES * 3 {
            breaker.begin_at(now, TOO_SHORT).expect("the circuit is closed").timed_out();
            drop(begin(&breaker, now));
        }
        begin(&breaker, now).timed_out();
        assert!(is_open(&breaker, now), "the last call had a fair timeout, and the failures before still count");
    }

    #[test]
    fn short_calls_do_not_replace_a_probe_and_no_probe_is_waited_for() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 0..FAILURES {
            fail(&breaker, now);
        }
        let second = |count| now + OPEN_FOR * count;
        breaker.begin_at(second(1), TOO_SHORT).expect_err("its timeout is too short for a probe");
        drop(begin(&breaker, second(1)));
        assert!(is_open(&breaker, second(1)), "still one a second");
        breaker.begin_at(second(3), TOO_SHORT).expect("there was no probe for a second").timed_out();
        breaker.begin_at(second(3), TOO_SHORT).expect_err("one a second of these, too");
        let endless = begin(&breaker, second(3));
        begin(&breaker, second(4)).succeeded();
        begin(&breaker, second(4)).succeeded();
        endless.failed();
        begin(&breaker, second(4)).succeeded();
    }
}
