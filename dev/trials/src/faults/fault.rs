//! What a fault is: its name, how it is done, and what a customer may notice of it. The faults themselves stand in the
//! modules below, by what they are done to.

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
use super::proxy::{Held, Mode, Moment, Proxy};
use super::{customers, databases, kafka, peers, processes, provider, report};
use stack::supervisor::Command::{Kill, Pause, Resume};

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What is done, for readers of the table.
    pub(crate) what: &'static str,
    pub(crate) expect: Expect,
    /// For how long nothing at all may happen to orders that have not settled, once it is over and no customer buys.
    pub(crate) settles: Duration,
    /// Whether it is one of those of the short schedule.
    pub(crate) is_short: bool,
    /// Comes back when it is over and healed.
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

/// Where a fault happens.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) control: &'a Control,
    pub(crate) machine: Machine,
    pub(crate) random: StdRng,
    pub(crate) pace: Pace,
}

/// What customers may notice. The limits are the product's own timeouts; the slack of the machine is added to each, and what
/// failed while the machine stalled does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No request fails at any time.
    NoFailure,
    /// Requests fail for no longer than this at a stretch, and meanwhile others succeed.
    Stretch(Duration),
    /// All requests may fail until this long after it is over.
    ServesWithin(Duration),
}

impl Expect {
    /// How long requests may fail, in one way or the other.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::NoFailure => Duration::ZERO,
            Self::Stretch(limit) | Self::ServesWithin(limit) => limit,
        }
    }
}

/// Longer than the product's own waits: the lease of a payment ends after 17 s, a consumer that is gone is given up after 6 s,
/// the session of a relay after 3 s, and what failed is tried again within 5 s.
pub(crate) const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// Where the provider failed: it is asked again within 36 s, and a lease may have to end first.
pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);
/// For a process that dies: its connections break and refuse at once, so requests fail once and are repeated.
pub(crate) const ONE_SECOND: Expect = Expect::Stretch(Duration::from_secs(1));
/// For what takes all replicas away: the edge asks after an unhealthy replica every 0.25 s, lets an ejected one back after 2 s,
/// and a breaker asks its peer again after 1 s.
pub(crate) const SERVES_WITHIN_FIVE: Expect = Expect::ServesWithin(Duration::from_secs(5));
/// For a replica that falls silent: six seconds until the edge is sure of it, and what was sent to it hangs for five more.
pub(crate) const TWELVE_SECONDS: Expect = Expect::Stretch(Duration::from_secs(12));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Short,
    Full,
}

impl Pace {
    /// How long something lasts, in seconds.
    pub(crate) fn of(self, full: u64) -> Duration {
        Duration::from_secs(match self {
            Self::Short => full.div_ceil(6).min(5),
            Self::Full => full,
        })
    }
}

/// Everything that is made to go wrong.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    [processes::FAULTS, peers::FAULTS, provider::FAULTS, kafka::FAULTS, databases::FAULTS, customers::FAULTS]
        .into_iter()
        .flatten()
}

/// A moment comes with every few purchases; after so many without it, it does not come.
const MOMENT_AFTER: u64 = 800;
/// Failures that do not end are found by how long they last.
const APART_WITHIN: Duration = Duration::from_secs(15);

impl<'a> Site<'a> {
    pub(crate) fn one_of(&mut self, role: Role) -> &'static str {
        replicas(role).choose(&mut self.random).expect("each role has replicas")
    }

    pub(crate) async fn lasts(&self, seconds: u64) {
        sleep(self.pace.of(seconds)).await;
    }

    /// The connection stands still at its moment.
    pub(crate) async fn hold(&self, proxy: &Proxy, moment: Moment) -> Result<Held> {
        tokio::select! {
            held = proxy.wait_for(moment) => held,
            bought = self.journal.buys(MOMENT_AFTER, self.control) => {
                bought.context("the moment did not come, as no customer bought anything")?;
                bail!("the moment did not come while customers bought {MOMENT_AFTER} times")
            }
        }
    }

    /// Waits until what fails next is no part of the same stretch of failures.
    pub(crate) async fn apart(&self) {
        self.journal.nothing_fails_for(2 * report::APART, APART_WITHIN).await;
    }

    /// At its moment the process stands still, and then it is gone.
    pub(crate) async fn kill_at(&self, replica: &'static str, moment: Moment) -> Result<()> {
        let held = self.hold(self.cluster.database(replica)?, moment).await.with_context(|| replica.to_owned())?;
        let killed = self.cluster.send(replica, Kill).await;
        drop(held);
        killed?;
        self.apart().await;
        Ok(())
    }

    /// A proxy treats what passes like that for a while.
    pub(crate) async fn misbehave(&self, proxy: &Proxy, mode: Mode, seconds: u64) {
        proxy.set(mode);
        self.lasts(seconds).await;
        proxy.set(Mode::Pass);
    }

    pub(crate) async fn freeze(&self, name: &str, seconds: u64) -> Result<()> {
        self.cluster.send(name, Pause).await?;
        self.lasts(seconds).await;
        self.cluster.send(name, Resume).await
    }
}
