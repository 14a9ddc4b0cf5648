//! One trial: the schedule's next fault, or two, from a shop in which everything has settled to one in which it has again.
//! What a fault leaves undone is never there for the next one.

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
use super::machine::Machine;
use super::report::{self, Row, Trial};

/// How long customers are watched after something was healed, or after the last failure.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Where faults are tried, one after another.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) journal: Arc<Journal>,
    pub(crate) load: &'a Load,
    pub(crate) control: &'a Control,
    pub(crate) machine: Machine,
    pub(crate) pace: Pace,
    /// What earlier trials left that never settles, which is no fault of later ones.
    pub(crate) left: Backlog,
}

/// How a trial ended.
struct Rest {
    /// Until when customers bought.
    until: Instant,
    /// How long after the fault everything placed before had settled.
    settled: Option<Duration>,
    /// Nothing, or what does not come to rest and why.
    outcome: Result<(), (Backlog, Error)>,
}

impl Stage<'_> {
    pub(crate) async fn try_out(&mut self, faults: &[&Fault], random: &mut StdRng) -> Result<Row> {
        let busy = self.journal.buys(CUSTOMERS.into(), self.control).await;
        let (injected, crashes) = (Instant::now(), self.cluster.crashes());
        let (expect, settles, mut outcome) = self.inject(faults, random).await?;
        if let Err(error) = busy {
            outcome = Err(format!("before it began, no purchase succeeded: {error:#}"));
        }
        self.journal.leave_within(Duration::ZERO);
        self.cluster.heal().await?;
        let healed = Instant::now();
        let Rest { until, settled, outcome: rest } = self.come_to_rest(expect, healed, settles).await?;
        if let Err((left, error)) = rest {
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
                // What one waits for, or works on, may not be there while the other is at work.
                let named = faults.iter().zip([together.0, together.1]);
                let notes = named.filter_map(|(fault, it)| Some(format!("; {}: {:#}", fault.name, it.err()?)));
                // Together they may make anything fail for a while; nothing may be broken.
                (Expect::ServesWithin(Duration::from_secs(15)), 2 * A_MINUTE, Ok(notes.collect()))
            }
            _ => bail!("a try is of one fault, or of two"),
        })
    }

    /// Customers buy until they are served again, and then wait until all orders have settled.
    async fn come_to_rest(&self, expect: Expect, healed: Instant, settles: Duration) -> Result<Rest> {
        let (before, mut settled) = (OffsetDateTime::now_utc(), None);
        let slack = self.machine.slack();
        let rest = async {
            self.journal.nothing_fails_for(AFTERWARDS, expect.limit() + slack + AFTERWARDS).await;
            let until = Instant::now();
            let _closed = self.load.close().await;
            let worked_off = backlog::work_off(self.cluster, self.control, settles + slack, &self.left).await;
            let outcome = match worked_off {
                // The next fault may take away the replica that is left.
                Ok(()) => self.cluster.edge_serves().await,
                Err(error) => Err(error.context("orders do not settle")),
            };
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(error) => Err((self.cluster.backlog().await?, error)),
            };
            anyhow::Ok((until, outcome))
        };
        let settling = async {
            while self.cluster.unsettled(before).await? > self.left.prompt_orders {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            settled = Some(healed.elapsed());
            std::future::pending::<Result<Infallible>>().await
        };
        let (until, outcome) = tokio::select! {
            rest = rest => rest?,
            failed = settling => match failed? {},
        };
        let settled = settled.or_else(|| outcome.is_ok().then(|| healed.elapsed()));
        Ok(Rest { until, settled, outcome })
    }
}
