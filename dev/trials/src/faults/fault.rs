//! A fault: its name, how it is injected, and what customers may notice of it. The faults are in the modules that `all` names, by
//! what they affect.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use roster::Role;
use tokio::time::sleep;

use super::cluster::{Cluster, replicas};
use super::control::Control;
use super::journal::Journal;
use super::machine::Machine;
use super::moment::Moment;
use super::proxy::{Held, Mode, Proxy};
use super::{certificates, customers, databases, kafka, limits, mails, peers, processes, provider, report};
use stack::supervisor::Command::{Kill, Pause, Resume};

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// The description, for the table.
    pub(crate) what: &'static str,
    pub(crate) expect: Expect,
    /// How long unsettled orders may make no progress, once the fault is over and no customer buys.
    pub(crate) settles: Duration,
    /// Whether the short schedule has it.
    pub(crate) is_short: bool,
    /// Returns when the fault is over.
    pub(crate) inject: for<'a> fn(Site<'a>) -> Injected<'a>,
}

impl Fault {
    pub(crate) const fn new(
        name: &'static str,
        what: &'static str,
        expect: Expect,
        inject: for<'a> fn(Site<'a>) -> Injected<'a>,
    ) -> Self {
        Self { name, what, expect, settles: HALF_A_MINUTE, is_short: false, inject }
    }

    pub(crate) const fn settles_within(self, settles: Duration) -> Self {
        Self { settles, ..self }
    }

    pub(crate) const fn short(self) -> Self {
        Self { is_short: true, ..self }
    }
}

pub(crate) type Injected<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// What a fault may use.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) control: &'a Control,
    pub(crate) machine: Machine,
    /// Purchases per second, now.
    pub(crate) rate: f64,
    pub(crate) random: StdRng,
    pub(crate) pace: Pace,
}

/// What customers may notice. The limits are the product's own timeouts; the slack of the machine is added to each, and failures
/// while the machine stalled do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No request fails at any time.
    NoFailure,
    /// Requests fail for no longer than this at a stretch, while others succeed.
    Stretch(Duration),
    /// All requests may fail until this long after it is over.
    ServesWithin(Duration),
}

impl Expect {
    /// How long requests may fail.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::NoFailure => Duration::ZERO,
            Self::Stretch(limit) | Self::ServesWithin(limit) => limit,
        }
    }
}

/// Longer than the product's own waits: the lease of a payment expires after 23 s, Kafka removes a dead consumer after 6 s, the
/// session of a relay ends after 3 s, and retries come within 5 s.
pub(crate) const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// For failures of the provider: it is called again within 36 s, and a lease may have to expire first.
pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);
/// For a killed process: its connections break and refuse at once, so requests fail once and are repeated.
pub(crate) const ONE_SECOND: Expect = Expect::Stretch(Duration::from_secs(1));
/// For faults of all replicas: the edge checks an unhealthy replica every 0.25 s, uses an ejected one again after 2 s, and a
/// circuit breaker half-opens after 1 s.
pub(crate) const SERVES_WITHIN_FIVE: Expect = Expect::ServesWithin(Duration::from_secs(5));
/// For a replica that falls silent: the edge needs six seconds to detect it, and requests to it hang for five more.
pub(crate) const TWELVE_SECONDS: Expect = Expect::Stretch(Duration::from_secs(12));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Short,
    Full,
}

impl Pace {
    /// How long something lasts in a run of this pace, from its seconds in a full run.
    pub(crate) fn of(self, full: u64) -> Duration {
        Duration::from_secs(match self {
            Self::Short => full.div_ceil(6).min(5),
            Self::Full => full,
        })
    }
}

/// All faults.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    [
        processes::FAULTS,
        peers::FAULTS,
        certificates::FAULTS,
        provider::FAULTS,
        mails::FAULTS,
        kafka::FAULTS,
        databases::FAULTS,
        customers::FAULTS,
        limits::FAULTS,
    ]
    .into_iter()
    .flatten()
}

/// A moment occurs with every few purchases; after so many without it, the trial fails.
const MOMENT_AFTER: u64 = 800;
/// Failures that last longer than this are found by the limit of the fault.
const GAP_WITHIN: Duration = Duration::from_secs(15);

impl<'a> Site<'a> {
    pub(crate) fn one_of(&mut self, role: Role) -> &'static str {
        replicas(role).choose(&mut self.random).expect("each role has replicas")
    }

    pub(crate) async fn lasts(&self, seconds: u64) {
        sleep(self.pace.of(seconds)).await;
    }

    /// Waits for a moment, and holds the connection there.
    pub(crate) async fn hold(&self, proxy: &Proxy, moment: Moment) -> Result<Held> {
        tokio::select! {
            held = proxy.wait_for(moment) => held,
            bought = self.journal.buys(MOMENT_AFTER, self.control) => {
                bought.context("the moment did not occur, as no purchase succeeded")?;
                bail!("the moment did not occur within {MOMENT_AFTER} purchases")
            }
        }
    }

    /// Waits until the next failure does not belong to the same stretch of failures.
    pub(crate) async fn gap(&self) {
        self.journal.nothing_fails_for(2 * report::APART, GAP_WITHIN).await;
    }

    /// Kills a process at a moment.
    pub(crate) async fn kill_at(&self, replica: &'static str, moment: Moment) -> Result<()> {
        let held = self.hold(self.cluster.database(replica)?, moment).await.with_context(|| replica.to_owned())?;
        let killed = self.cluster.send(replica, Kill).await;
        drop(held);
        killed?;
        self.gap().await;
        Ok(())
    }

    /// Kills the one of these processes that reaches a moment first. Of a consumer of several topics, a replica may have no partition of
    /// the one whose events occur.
    pub(crate) async fn kill_first_at(&self, replicas: &[&'static str], moment: Moment) -> Result<()> {
        let hold = async |replica: &'static str| {
            let held = self.hold(self.cluster.database(replica)?, moment).await.with_context(|| replica.to_owned())?;
            anyhow::Ok((replica, held))
        };
        let [first, second] = replicas else { bail!("there are two replicas") };
        let (replica, held) = tokio::select! {
            reached = hold(first) => reached?,
            reached = hold(second) => reached?,
        };
        let killed = self.cluster.send(replica, Kill).await;
        drop(held);
        killed?;
        self.gap().await;
        Ok(())
    }

    /// Sets the mode of proxies for a while.
    pub(crate) async fn misbehave(&self, proxies: &[Proxy], mode: Mode, seconds: u64) {
        proxies.iter().for_each(|proxy| proxy.set(mode));
        self.lasts(seconds).await;
        proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
    }

    pub(crate) async fn freeze(&self, name: &str, seconds: u64) -> Result<()> {
        self.cluster.send(name, Pause).await?;
        self.lasts(seconds).await;
        self.cluster.send(name, Resume).await
    }
}
