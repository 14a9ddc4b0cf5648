//! What a fault is: its name, how it is done, and what a customer may notice of it. The faults themselves stand in the
//! modules below, by what they are done to.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, Role};
use super::journal::Journal;
use super::proxy::{Held, Mode, Moment, Proxy};
use super::{customers, databases, kafka, peers, processes, provider};
use crate::supervisor::Order::{Kill, Pause, Resume};

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What is done, for readers of the table.
    pub(crate) what: &'static str,
    pub(crate) expect: Expect,
    /// How long after it is over everything placed before may take to settle.
    pub(crate) settles: Duration,
    /// Whether it is one of those of the short schedule.
    pub(crate) is_short: bool,
    /// Whether customers buy at half the rate until all has settled: what piles up meanwhile is worked off by what the machine
    /// has left beside them.
    pub(crate) is_calm: bool,
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
        Self { name, what, expect, settles: HALF_A_MINUTE, is_short: false, is_calm: false, inject }
    }

    pub(crate) const fn settles_within(self, settles: Duration) -> Self {
        Self { settles, ..self }
    }

    pub(crate) const fn short(self) -> Self {
        Self { is_short: true, ..self }
    }

    pub(crate) const fn calm(self) -> Self {
        Self { is_calm: true, ..self }
    }
}

pub(crate) type Injected<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Where a fault happens.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: &'a Arc<Journal>,
    pub(crate) random: StdRng,
    pub(crate) pace: Pace,
}

/// What customers may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No request fails at any time.
    NoFailure,
    /// Requests fail for no longer than this at a stretch, and meanwhile others succeed.
    Stretch(Duration),
    /// All requests may fail until this long after it is over.
    ServesWithin(Duration),
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);
pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);
pub(crate) const ONE_SECOND: Expect = Expect::Stretch(Duration::from_secs(1));
/// For what takes all replicas away.
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

    /// What limits are multiplied by: a short run is of a debug build, beside whatever else the machine does.
    pub(crate) fn slack(self) -> u32 {
        match self {
            Self::Short => 4,
            Self::Full => 1,
        }
    }
}

/// Everything that is made to go wrong.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    [processes::FAULTS, peers::FAULTS, provider::FAULTS, kafka::FAULTS, databases::FAULTS, customers::FAULTS]
        .into_iter()
        .flatten()
}

/// How long a moment is waited for: under load it comes many times a second.
const MOMENT_WITHIN: Duration = Duration::from_secs(20);

impl<'a> Site<'a> {
    pub(crate) fn one_of(&mut self, role: &'static Role) -> &'static str {
        role.replicas.choose(&mut self.random).expect("each role has replicas")
    }

    pub(crate) async fn lasts(&self, seconds: u64) {
        sleep(self.pace.of(seconds)).await;
    }

    /// The connection stands still at its moment.
    pub(crate) async fn hold(&self, proxy: &Proxy, moment: Moment) -> Result<Held> {
        timeout(MOMENT_WITHIN, proxy.wait_for(moment)).await.context("the moment did not come")?
    }

    /// At its moment the process stands still, and then it is gone.
    pub(crate) async fn kill_at(&self, replica: &'static str, moment: Moment) -> Result<()> {
        let held = self.hold(self.cluster.database(replica)?, moment).await.with_context(|| replica.to_owned())?;
        let killed = self.cluster.order(replica, Kill).await;
        drop(held);
        killed
    }

    /// A proxy treats what passes like that for a while.
    pub(crate) async fn misbehave(&self, proxy: &Proxy, mode: Mode, seconds: u64) {
        proxy.set(mode);
        self.lasts(seconds).await;
        proxy.set(Mode::Pass);
    }

    pub(crate) async fn freeze(&self, name: &str, seconds: u64) -> Result<()> {
        self.cluster.order(name, Pause).await?;
        self.lasts(seconds).await;
        self.cluster.order(name, Resume).await
    }
}
