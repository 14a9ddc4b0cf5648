//! What this machine does: measured before anything is broken, while customers buy as fast as they are answered. How much
//! they buy afterwards is chosen from it, and what is added to each limit.

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

/// So often customers have bought before it is measured: by then all of them are signed in, and everything has been used.
const WARM: u64 = 5 * CUSTOMERS as u64;
const WARM_WITHIN: Duration = Duration::from_secs(120);
/// In seconds.
const MEASURED: u64 = 18;
/// Of what the machine does, customers ask for half: the rest is for what a fault left undone.
const SHARE: f64 = 0.5;
/// Fewer purchases a second hit no moment of a fault.
const SLOWEST: f64 = 2.0;
/// Beside the product's timeouts, an end to failures takes some requests and answers one after the other, each as slow as
/// the slowest under full load.
const ROUNDS: u32 = 4;

/// The median, and what 99 of 100 do not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: Duration,
    pub(crate) most: Duration,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
        Self { median: at(50), most: at(99) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s (99 of 100: {:.3} s)", self.median.as_secs_f64(), self.most.as_secs_f64())
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Purchases a second that settle under full load.
    settles: f64,
    /// Requests under full load.
    busy: Spread,
    /// From a purchase until it is paid, under full load.
    settling: Spread,
    /// Purchases a second that customers want from then on.
    pub(crate) rate: f64,
    /// Requests meanwhile.
    pub(crate) usual: Spread,
}

impl Machine {
    /// Leaves customers buying at the rate that it found: as many as are `wanted`, if the machine does twice as many.
    pub(crate) async fn measure(
        (wanted, pace): (u32, Pace),
        cluster: &Cluster,
        load: &Load,
        journal: &Journal,
        control: &Control,
    ) -> Result<Self> {
        journal.buys(WARM, WARM_WITHIN).await?;
        let (begun, since) = (Instant::now(), OffsetDateTime::now_utc());
        let before = cluster.settled().await?;
        sleep(pace.of(MEASURED)).await;
        let busy = Spread::of(journal.durations(begun));
        let closed = load.close().await;
        backlog::work_off(cluster, control, HALF_A_MINUTE, &Backlog::default()).await?;
        let settles = (cluster.settled().await? - before) as f64 / begun.elapsed().as_secs_f64();
        let settling = Spread::of(cluster.settling(since).await?);
        ensure!(settles >= SLOWEST, "this machine settles {settles:.1} purchases a second, and {SLOWEST} are needed");
        let rate = rate(settles, wanted);
        load.slow_down(rate);
        drop(closed);
        let begun = Instant::now();
        sleep(pace.of(MEASURED) / 2).await;
        Ok(Self { settles, busy, settling, rate, usual: Spread::of(journal.durations(begun)) })
    }

    /// What is added to a limit that the product's timeouts set.
    pub(crate) fn slack(&self) -> Duration {
        self.busy.most * ROUNDS
    }
}

fn rate(settles: f64, wanted: u32) -> f64 {
    f64::from(wanted).min((settles * SHARE).round())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settles, busy, settling, rate, usual } = self;
        write!(
            f,
            "Under full load this machine settled {settles:.0} purchases a second; a request took {busy}, a purchase was paid \
             after {settling}. Customers bought {rate} times a second then, and a request took {usual}. To each limit {:.1} s \
             were added.",
            self.slack().as_secs_f64()
        )
    }
}

#[cfg(test)]
impl Machine {
    pub(crate) fn of(rate: f64, slack: Duration) -> Self {
        let spread = Spread { median: slack / ROUNDS, most: slack / ROUNDS };
        Self { settles: rate / SHARE, busy: spread, settling: spread, rate, usual: spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_want_half_of_what_the_machine_does() {
        assert_eq!((rate(55.0, 40), rate(200.0, 40), rate(20.0, 10)), (28.0, 40.0, 10.0));
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((spread.median, spread.most), (Duration::from_millis(51), Duration::from_millis(100)));
    }
}
