//! Everything that is made to go wrong: its name, how, and what a customer may notice of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, ROLES, Role};
use super::load::Journal;
use super::proxy::{Mode, Moment};
use crate::supervisor::Order::{Kill, KillNow, Pause, Resume, Start, Stop};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ServiceKilledAfterCommit,
    RelayKilledBeforeDelete,
    ReplicasKilled,
    ReplicaFrozen,
    RelayLeaderFrozen,
    RollingRestart,
    CommitUnanswered,
    QuoteUnanswered,
    ConfirmUnanswered,
    CaptureUnanswered,
    KafkaKilled,
    KafkaFrozen,
    PostgresKilled,
    BackendsTerminated,
    TablesLocked,
    LongTransaction,
    CallsCancelled,
    ProviderKilled,
    ProviderFrozen,
    DatabaseSlow,
    DatabaseCut,
    DatabaseHalfOpen,
    CatalogueSlow,
    CatalogueCut,
}

/// What customers may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No request fails at any time.
    NoFailure,
    /// Requests may fail until this long after the injection is over.
    ServesWithin(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Short,
    Full,
}

impl Pace {
    /// How long something lasts.
    fn of(self, full: u64) -> Duration {
        match self {
            Self::Short => Duration::from_secs(full.div_ceil(6).min(5)),
            Self::Full => Duration::from_secs(full),
        }
    }
}

/// How long a moment is waited for: under load it comes many times a second.
const MOMENT_WITHIN: Duration = Duration::from_secs(20);

const USER: usize = 1;
const INVENTORY: usize = 3;
const ORDER: usize = 4;
const PAYMENT: usize = 5;

impl Fault {
    pub(crate) const ALL: [Self; 24] = [
        Self::ServiceKilledAfterCommit,
        Self::RelayKilledBeforeDelete,
        Self::ReplicasKilled,
        Self::ReplicaFrozen,
        Self::RelayLeaderFrozen,
        Self::RollingRestart,
        Self::CommitUnanswered,
        Self::QuoteUnanswered,
        Self::ConfirmUnanswered,
        Self::CaptureUnanswered,
        Self::KafkaKilled,
        Self::KafkaFrozen,
        Self::PostgresKilled,
        Self::BackendsTerminated,
        Self::TablesLocked,
        Self::LongTransaction,
        Self::CallsCancelled,
        Self::ProviderKilled,
        Self::ProviderFrozen,
        Self::DatabaseSlow,
        Self::DatabaseCut,
        Self::DatabaseHalfOpen,
        Self::CatalogueSlow,
        Self::CatalogueCut,
    ];

    /// Those of a run of three minutes.
    pub(crate) const SHORT: [Self; 9] = [
        Self::ServiceKilledAfterCommit,
        Self::RelayKilledBeforeDelete,
        Self::ReplicasKilled,
        Self::RelayLeaderFrozen,
        Self::CommitUnanswered,
        Self::CaptureUnanswered,
        Self::KafkaKilled,
        Self::PostgresKilled,
        Self::CallsCancelled,
    ];

    /// The name, and what is done.
    pub(crate) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceKilledAfterCommit => {
                ("service-killed-after-commit", "kill -9 when Postgres has committed and before anybody is told")
            }
            Self::RelayKilledBeforeDelete => {
                ("relay-killed-before-delete", "kill -9 of a relay between Kafka's acknowledgement and the delete")
            }
            Self::ReplicasKilled => ("replicas-killed", "kill -9 of one replica of each role, one after another"),
            Self::ReplicaFrozen => ("replica-frozen", "SIGSTOP of one replica of the order service for 30 s"),
            Self::RelayLeaderFrozen => ("relay-leader-frozen", "SIGSTOP of the replica that publishes, for 30 s"),
            Self::RollingRestart => ("rolling-restart", "SIGTERM and start of every replica, one after another"),
            Self::CommitUnanswered => ("commit-unanswered", "the answer of a COMMIT vanishes, in each service"),
            Self::QuoteUnanswered => ("quote-unanswered", "the answer of a call between services vanishes"),
            Self::ConfirmUnanswered => ("confirm-unanswered", "the provider's answer to a confirmation vanishes"),
            Self::CaptureUnanswered => ("capture-unanswered", "the provider's answer to a capture vanishes"),
            Self::KafkaKilled => ("kafka-killed", "kill -9 of the broker, away for 30 s"),
            Self::KafkaFrozen => ("kafka-frozen", "SIGSTOP of the broker for 60 s"),
            Self::PostgresKilled => ("postgres-killed", "kill -9 of Postgres, with recovery"),
            Self::BackendsTerminated => ("backends-terminated", "every session of every database is ended, five times"),
            Self::TablesLocked => ("tables-locked", "the tables of orders and stock are locked until pools are empty"),
            Self::LongTransaction => ("long-transaction", "a transaction with an event stays open for 20 s"),
            Self::CallsCancelled => ("calls-cancelled", "half of all calls are given up at a random moment"),
            Self::ProviderKilled => ("provider-killed", "kill -9 of the provider, away for 10 s"),
            Self::ProviderFrozen => ("provider-frozen", "SIGSTOP of the provider for 20 s"),
            Self::DatabaseSlow => ("database-slow", "20 ms more for each chunk from and to every database"),
            Self::DatabaseCut => {
                ("database-cut", "one replica of the order service cannot reach its database for 15 s")
            }
            Self::DatabaseHalfOpen => {
                ("database-half-open", "to one replica, its database falls silent without closing anything, for 15 s")
            }
            Self::CatalogueSlow => ("catalogue-slow", "200 ms more for each chunk from and to the catalogue"),
            Self::CatalogueCut => ("catalogue-cut", "the order service cannot reach the catalogue for 10 s"),
        }
    }

    pub(crate) fn expectation(self) -> Expect {
        let within = |seconds| Expect::ServesWithin(Duration::from_secs(seconds));
        match self {
            Self::RollingRestart | Self::KafkaKilled | Self::KafkaFrozen => Expect::NoFailure,
            Self::ProviderKilled | Self::ProviderFrozen | Self::LongTransaction => Expect::NoFailure,
            Self::ConfirmUnanswered | Self::CaptureUnanswered | Self::CallsCancelled => Expect::NoFailure,
            Self::ReplicasKilled | Self::ServiceKilledAfterCommit | Self::RelayKilledBeforeDelete => within(1),
            Self::CommitUnanswered | Self::QuoteUnanswered => within(1),
            _ => within(5),
        }
    }

    /// Comes back when it is over and healed.
    pub(crate) async fn inject(
        self,
        cluster: &Cluster,
        journal: &Journal,
        random: &mut StdRng,
        pace: Pace,
    ) -> Result<()> {
        match self {
            Self::ServiceKilledAfterCommit => {
                for role in [ORDER, INVENTORY, PAYMENT, ORDER] {
                    kill_at(cluster, one_of(&ROLES[role], random), Moment::Commit).await?;
                }
                Ok(())
            }
            Self::RelayKilledBeforeDelete => {
                for role in [ORDER, INVENTORY, PAYMENT] {
                    kill_at(cluster, cluster.leader(&ROLES[role]).await?, Moment::RelayDelete).await?;
                }
                Ok(())
            }
            Self::ReplicasKilled => {
                for role in &ROLES {
                    cluster.order(one_of(role, random), Kill).await?;
                    sleep(pace.of(6)).await;
                }
                Ok(())
            }
            Self::ReplicaFrozen => freeze(cluster, one_of(&ROLES[ORDER], random), pace.of(30)).await,
            Self::RelayLeaderFrozen => freeze(cluster, cluster.leader(&ROLES[ORDER]).await?, pace.of(30)).await,
            Self::RollingRestart => {
                for role in &ROLES {
                    for replica in role.replicas {
                        cluster.order(replica, Stop).await?;
                        cluster.order(replica, Start).await?;
                        // The edge finds it again within a health check.
                        sleep(Duration::from_secs(3)).await;
                    }
                }
                Ok(())
            }
            Self::CommitUnanswered => {
                for role in [USER, ORDER, INVENTORY, PAYMENT] {
                    for replica in ROLES[role].replicas {
                        // A replica may have nothing to do, but not for long.
                        let held = cluster.database(replica)?.wait_for(Moment::Commit);
                        let _ = timeout(MOMENT_WITHIN, held).await.map(|held| held.map(drop));
                    }
                }
                Ok(())
            }
            Self::QuoteUnanswered => {
                for _ in 0..5 {
                    held(cluster.product.wait_for(Moment::Answer(""))).await?;
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(())
            }
            Self::ConfirmUnanswered => lose_answers(cluster, "/confirm").await,
            Self::CaptureUnanswered => lose_answers(cluster, "/capture").await,
            Self::KafkaKilled => {
                cluster.order("kafka", KillNow).await?;
                cluster.order("kafka", Stop).await?;
                sleep(pace.of(30)).await;
                cluster.order("kafka", Start).await
            }
            Self::KafkaFrozen => freeze(cluster, "kafka", pace.of(60)).await,
            Self::PostgresKilled => cluster.order("postgres", Kill).await,
            Self::BackendsTerminated => {
                for _ in 0..5 {
                    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname like 'souk_%'";
                    cluster.execute("postgres", end).await?;
                    sleep(pace.of(2)).await;
                }
                Ok(())
            }
            Self::TablesLocked => {
                let (orders, stock) = (
                    lock(cluster, "souk_order", r#"lock table "order" in exclusive mode"#, pace.of(8)),
                    lock(cluster, "souk_inventory", "lock table stock in exclusive mode", pace.of(8)),
                );
                tokio::try_join!(orders, stock).map(drop)
            }
            Self::LongTransaction => {
                // It has a number and an id of the outbox, below those of all that commit meanwhile.
                let open = "insert into outbox (event_id, topic, key, version, type, payload, actor, created_at)
                            values (gen_random_uuid(), 'souk.order.v1', gen_random_uuid(), 1, 'none', '', 'test', now())";
                lock(cluster, "souk_order", open, pace.of(20)).await
            }
            Self::CallsCancelled => {
                journal.leaving.store(true, Ordering::Relaxed);
                sleep(pace.of(20)).await;
                journal.leaving.store(false, Ordering::Relaxed);
                Ok(())
            }
            Self::ProviderKilled => {
                cluster.order("provider", KillNow).await?;
                cluster.order("provider", Stop).await?;
                sleep(pace.of(10)).await;
                cluster.order("provider", Start).await
            }
            Self::ProviderFrozen => freeze(cluster, "provider", pace.of(20)).await,
            Self::DatabaseSlow => {
                let replicas = || ROLES.iter().flat_map(|role| role.replicas);
                let databases = || replicas().filter_map(|replica| cluster.database(replica).ok());
                databases().for_each(|proxy| proxy.set(Mode::Slow(Duration::from_millis(20))));
                sleep(pace.of(15)).await;
                databases().for_each(|proxy| proxy.set(Mode::Pass));
                Ok(())
            }
            Self::DatabaseCut => misbehave(cluster, one_of(&ROLES[ORDER], random), Mode::Cut, pace.of(15)).await,
            Self::DatabaseHalfOpen => {
                misbehave(cluster, one_of(&ROLES[ORDER], random), Mode::HalfOpen, pace.of(15)).await
            }
            Self::CatalogueSlow => {
                cluster.product.set(Mode::Slow(Duration::from_millis(200)));
                sleep(pace.of(15)).await;
                cluster.product.set(Mode::Pass);
                Ok(())
            }
            Self::CatalogueCut => {
                cluster.product.set(Mode::Cut);
                sleep(pace.of(10)).await;
                cluster.product.set(Mode::Pass);
                Ok(())
            }
        }
    }
}

fn one_of(role: &'static Role, random: &mut StdRng) -> &'static str {
    role.replicas.choose(random).expect("each role has replicas")
}

async fn held(moment: impl Future<Output = Result<super::proxy::Held>>) -> Result<super::proxy::Held> {
    timeout(MOMENT_WITHIN, moment).await.context("the moment did not come")?
}

/// At its moment the process stands still, and then it is gone.
async fn kill_at(cluster: &Cluster, replica: &'static str, moment: Moment) -> Result<()> {
    let held = held(cluster.database(replica)?.wait_for(moment)).await.with_context(|| replica.to_owned())?;
    let killed = cluster.order(replica, Kill).await;
    drop(held);
    killed
}

async fn freeze(cluster: &Cluster, name: &str, time: Duration) -> Result<()> {
    cluster.order(name, Pause).await?;
    sleep(time).await;
    cluster.order(name, Resume).await
}

async fn lose_answers(cluster: &Cluster, text: &'static str) -> Result<()> {
    for _ in 0..5 {
        held(cluster.provider.wait_for(Moment::Answer(text))).await?;
    }
    Ok(())
}

async fn misbehave(cluster: &Cluster, replica: &'static str, mode: Mode, time: Duration) -> Result<()> {
    let proxy = cluster.database(replica)?;
    proxy.set(mode);
    sleep(time).await;
    proxy.set(Mode::Pass);
    Ok(())
}

/// Holds what a statement locks, and takes it all back.
async fn lock(cluster: &Cluster, database: &str, statement: &str, time: Duration) -> Result<()> {
    let statement = format!("begin; {statement}; select pg_sleep({}); rollback", time.as_secs_f64());
    cluster.execute(database, &statement).await
}
