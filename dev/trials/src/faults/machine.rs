//! Measures this machine before the first fault, while customers buy as fast as they get responses. The rate of purchases during
//! the faults, and the slack of each limit, follow from it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::backlog::{self, Backlog};
use super::cluster::Cluster;
use super::control::Control;
use super::fault::{HALF_A_MINUTE, Pace};
use super::journal::Journal;
use super::load::{CUSTOMERS, Load};

/// Purchases before the measurement: by then all customers have signed in, and all connections are open.
const WARM_UP: u64 = 5 * CUSTOMERS as u64;
/// How long it measures, in seconds.
const MEASURED: u64 = 18;
/// The share of its capacity that customers use; the rest is for draining the backlog of a fault.
const SHARE: f64 = 0.5;
/// With fewer purchases per second, a fault would affect no request.
const SLOWEST: f64 = 2.0;
/// Requests that take so much longer than usual, at the same rate, mean a slower machine: other processes use it, too.
const SLOWER: u32 = 2;
/// The longest 99th percentile that a crowd of buyers may cause: a quarter of a request's deadline.
const CROWDED: Duration = Duration::from_millis(1_250);
const FEWEST_BUYERS: f64 = 4.0;
/// Beside the product's own timeouts, recovery takes a few requests in sequence, each as slow as the p99 under full load.
const ROUNDS: u32 = 4;

/// Two percentiles of a duration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Spread {
    pub(crate) fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.3} s, p99 {:.3} s", self.p50.as_secs_f64(), self.p99.as_secs_f64())
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Purchases per second that are settled under full load.
    capacity: f64,
    /// Durations of requests under full load.
    busy: Spread,
    /// Times from a purchase until it is paid, under full load.
    settling: Spread,
    /// Purchases per second during the faults.
    pub(crate) rate: f64,
    /// Durations of requests at that rate.
    pub(crate) usual: Spread,
}

impl Machine {
    /// Measures, then sets the rate of purchases: `wanted`, or half of the capacity if that is less.
    pub(crate) async fn measure(
        (wanted, pace): (u32, Pace),
        cluster: &Cluster,
        load: &Load,
        journal: &Journal,
        control: &Control,
    ) -> Result<Self> {
        journal.buys(WARM_UP, control).await?;
        let (begun, since) = (Instant::now(), OffsetDateTime::now_utc());
        let before = cluster.finished().await?;
        sleep(pace.of(MEASURED)).await;
        let busy = Spread::of(journal.durations(begun));
        let paused = load.pause().await;
        backlog::drain(cluster, control, HALF_A_MINUTE, &Backlog::default()).await?;
        let capacity = (cluster.finished().await? - before) as f64 / begun.elapsed().as_secs_f64();
        let settling = Spread::of(cluster.settling_times(since).await?);
        ensure!(
            capacity >= SLOWEST,
            "this machine settles {capacity:.1} purchases per second; at least {SLOWEST} are needed"
        );
        let rate = rate(capacity, wanted);
        load.set_rate(rate);
        drop(paused);
        let begun = Instant::now();
        sleep(pace.of(MEASURED) / 2).await;
        Ok(Self { capacity, busy, settling, rate, usual: Spread::of(journal.durations(begun)) })
    }

    /// The rate at which customers buy next, from the present one and the median of their requests without a fault. It falls when the
    /// machine has become slower since it was measured, and rises again, up to the rate that was measured.
    pub(crate) fn next_rate(&self, present: f64, p50: Duration) -> f64 {
        let next = if p50 > self.usual.p50 * SLOWER { present / 2.0 } else { present * 2.0 };
        next.clamp(SLOWEST.min(self.rate), self.rate)
    }

    /// How many of these buyers may send requests all the time: on a slow machine, more of them would only wait for each other until
    /// their deadlines.
    pub(crate) fn crowd(&self, wanted: u32) -> u32 {
        let most = f64::from(CUSTOMERS) * CROWDED.div_duration_f64(self.busy.p99.max(Duration::from_millis(1)));
        f64::from(wanted).min(most.max(FEWEST_BUYERS)) as u32
    }

    /// The slack that is added to each limit.
    pub(crate) fn slack(&self) -> Duration {
        self.busy.p99 * ROUNDS
    }
}

fn rate(capacity: f64, wanted: u32) -> f64 {
    f64::from(wanted).min((capacity * SHARE).round())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, busy, settling, rate, usual } = self;
        write!(
            f,
            "Under full load this machine settled {capacity:.0} purchases per second; requests took {busy}; purchases were paid \
             after {settling}. Customers then bought {rate} times per second, and requests took {usual}. Each limit has a slack \
             of {:.1} s",
            self.slack().as_secs_f64()
        )
    }
}

#[cfg(test)]
impl Machine {
    pub(crate) fn of(rate: f64, slack: Duration) -> Self {
        let spread = Spread { p50: slack / ROUNDS, p99: slack / ROUNDS };
        Self { capacity: rate / SHARE, busy: spread, settling: spread, rate, usual: spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_buy_less_often_on_a_machine_that_became_slower() {
        let machine = Machine::of(40.0, Duration::from_millis(400));
        let rates = [100, 201, 500, 900, 900, 900, 150, 150].map(Duration::from_millis).into_iter();
        let followed = rates.scan(40.0, |rate, p50| {
            *rate = machine.next_rate(*rate, p50);
            Some(*rate)
        });
        assert_eq!(followed.collect::<Vec<_>>(), [40.0, 20.0, 10.0, 5.0, 2.5, 2.0, 4.0, 8.0]);
    }

    #[test]
    fn a_crowd_is_smaller_on_a_slow_machine() {
        let crowd = |p99| Machine::of(40.0, Duration::from_millis(p99) * ROUNDS).crowd(32);
        assert_eq!([400, 1_250, 60_000].map(crowd), [32, 24, 4]);
    }

    #[test]
    fn customers_use_half_of_the_capacity() {
        assert_eq!((rate(55.0, 40), rate(200.0, 40), rate(20.0, 10)), (28.0, 40.0, 10.0));
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((spread.p50, spread.p99), (Duration::from_millis(51), Duration::from_millis(100)));
    }
}
