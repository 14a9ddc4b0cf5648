//! One trial: injects the schedule's next fault, or two, and waits until the backlog is drained again, so that a fault never
//! affects the next trial.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use time::OffsetDateTime;

use super::LOOK_AGAIN;
use super::backlog::{self, Backlog};
use super::cluster::Cluster;
use super::control::Control;
use super::fault::{A_MINUTE, Expect, Fault, Pace, Site};
use super::journal::Journal;
use super::load::{CUSTOMERS, Load};
use super::machine::{Machine, Spread};
use super::report::{self, Row, Trial};

/// How long customers go on after the end of a fault, or after the last failure.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Runs trials, one after another.
pub(crate) struct Trials<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: Arc<Journal>,
    pub(crate) load: &'a Load,
    pub(crate) control: &'a Control,
    pub(crate) machine: Machine,
    /// Purchases per second, now.
    pub(crate) rate: f64,
    pub(crate) pace: Pace,
    /// The backlog that earlier trials left and that never drains; later ones are not blamed for it.
    pub(crate) left: Backlog,
}

/// The end of a trial.
struct Recovery {
    /// The time of the last purchase.
    until: Instant,
    /// How long after the fault every order of before was settled.
    settled: Option<Duration>,
    /// The error has the backlog that does not drain, and why.
    outcome: Result<(), (Backlog, Error)>,
}

impl Trials<'_> {
    pub(crate) async fn run(&mut self, faults: &[&Fault], random: &mut StdRng) -> Result<Row> {
        let before = Instant::now();
        let busy = self.journal.buys(CUSTOMERS.into(), self.control).await;
        self.rate = self.machine.next_rate(self.rate, Spread::of(self.journal.durations(before)).p50);
        self.load.set_rate(self.rate);
        let (injected, crashes) = (Instant::now(), self.cluster.crashes());
        let (expect, settles, mut outcome) = self.inject(faults, random).await?;
        if let Err(error) = busy {
            outcome = Err(format!("before the fault, no purchase succeeded: {error:#}"));
        }
        self.journal.abandon_within(Duration::ZERO);
        self.cluster.heal().await?;
        let healed = Instant::now();
        let Recovery { until, settled, outcome: drained } = self.recover(expect, healed, settles).await?;
        if let Err((left, error)) = drained {
            self.left = left;
            outcome = outcome.and(Err(format!("{error:#}")));
        }
        let crashed = self.cluster.crashes().into_iter().filter(|it| !crashes.contains(it));
        let crashed: Vec<_> = crashed.map(|(name, _)| name).collect();
        if !crashed.is_empty() {
            outcome = Err(format!("{} crashed", crashed.join(", ")));
        }
        let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
        let whats: Vec<_> = faults.iter().map(|fault| fault.what).collect();
        let (name, what) = (names.join(" + "), whats.join("; "));
        let trial = Trial { name, what, expect, injected, healed, settled, until, outcome };
        Ok(report::judge(trial, &self.journal, self.control, &self.machine).await)
    }

    async fn inject(
        &self,
        faults: &[&Fault],
        random: &mut StdRng,
    ) -> Result<(Expect, Duration, Result<String, String>)> {
        let mut site = || Site {
            cluster: self.cluster,
            journal: &self.journal,
            control: self.control,
            machine: self.machine,
            rate: self.rate,
            random: StdRng::seed_from_u64(random.random()),
            pace: self.pace,
        };
        Ok(match faults {
            [one] => {
                let outcome = (one.inject)(site()).await;
                (one.expect, one.settles, outcome.map(|()| String::new()).map_err(|error| format!("{error:#}")))
            }
            [one, other] => {
                let together = tokio::join!((one.inject)(site()), (other.inject)(site()));
                // One fault may not find what it needs because of the other.
                let named = faults.iter().zip([together.0, together.1]);
                let notes = named.filter_map(|(fault, it)| Some(format!("; {}: {:#}", fault.name, it.err()?)));
                // Together they may make all requests fail for a while; invariants must hold.
                (Expect::ServesWithin(Duration::from_secs(15)), 2 * A_MINUTE, Ok(notes.collect()))
            }
            _ => bail!("a trial has one fault, or two"),
        })
    }

    /// Customers buy until requests succeed again, and then wait until the backlog is drained.
    async fn recover(&self, expect: Expect, healed: Instant, settles: Duration) -> Result<Recovery> {
        let (before, mut settled) = (OffsetDateTime::now_utc(), None);
        let slack = self.machine.slack();
        let draining = async {
            self.journal.nothing_fails_for(AFTERWARDS, expect.limit() + slack + AFTERWARDS).await;
            let until = Instant::now();
            let _paused = self.load.pause().await;
            let drained = backlog::drain(self.cluster, self.control, settles + slack, &self.left).await;
            let outcome = match drained {
                // The next fault may stop the only replica that the edge uses.
                Ok(()) => self.cluster.edge_serves().await,
                Err(error) => Err(error.context("the backlog does not drain")),
            };
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(error) => Err((self.cluster.backlog().await?, error)),
            };
            anyhow::Ok((until, outcome))
        };
        let settling = async {
            while self.cluster.unfinished(before).await? > self.left.prompt_orders {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            settled = Some(healed.elapsed());
            std::future::pending::<Result<Infallible>>().await
        };
        let (until, outcome) = tokio::select! {
            drained = draining => drained?,
            failed = settling => match failed? {},
        };
        let settled = settled.or_else(|| outcome.is_ok().then(|| healed.elapsed()));
        Ok(Recovery { until, settled, outcome })
    }
}
