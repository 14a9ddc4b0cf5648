//! Publishes the outbox of one service in the order of its ids, and deletes what was acknowledged.
//!
//! The session that holds the lock is the one that reads and deletes, so a process that lost the lock cannot read on. What
//! was read is sent at once or not at all. Events that a former leader left in its producer may still arrive late, as
//! duplicates: the next leader found them in the table.

mod leader;
mod low_water;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::boot::metrics::{self, ByService};
use crate::event::Record;
use crate::event::outbox::Outbox;
use leader::in_time;
use low_water::LowWater;

/// How many events are in flight at once.
const MAX_IN_FLIGHT: usize = 500;
/// How long acknowledged events wait to be deleted with the next read. If the process is killed meanwhile, the next leader
/// publishes them again.
const DELETE_WITHIN: Duration = Duration::from_millis(50);
/// How often the outbox is read without a wake-up. It also keeps the session from being idle.
const TICK: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// How old what was read may be when it is sent: younger than the silence after which the lock is lost.
const FRESH: Duration = Duration::from_secs(2);
/// How many ticks a relay that stops waits for a broker that does not respond. The outbox keeps what is left.
const LAST_TICKS: u32 = 2;

static PUBLISHED: LazyLock<Family<ByService, Counter>> =
    LazyLock::new(|| metrics::register("outbox_published", "Events that the broker acknowledged", Family::default()));
static FAILED: LazyLock<Family<ByService, Counter>> =
    LazyLock::new(|| metrics::register("outbox_failures", "Rounds of the relay that failed", Family::default()));
static REFUSED: LazyLock<Family<ByService, Counter>> = LazyLock::new(|| {
    metrics::register("outbox_refused", "Sends that the broker refused, which are repeated", Family::default())
});
static LEADS: LazyLock<Family<ByService, Gauge>> = LazyLock::new(|| {
    metrics::register("outbox_leader", "Whether this process publishes the outbox", Family::default())
});
static PENDING: LazyLock<Family<ByService, Gauge>> = LazyLock::new(|| {
    metrics::register("outbox_pending", "Events in the outbox, as counted by the leader", Family::default())
});
static AGE: LazyLock<Family<ByService, Gauge>> = LazyLock::new(|| {
    metrics::register("outbox_age_seconds", "Age of the oldest event in the outbox", Family::default())
});

/// Sends an event to the broker. The call queues it, so events are sent in the order of calls; the returned future waits
/// for the broker's acknowledgement.
pub type Sender = Arc<dyn Fn(&Record) -> Acknowledgement + Send + Sync>;

pub type Acknowledgement = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>;

/// Why an event was not acknowledged. It stays in the outbox in any case.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the queue of the producer is full")]
    QueueFull,
    #[error("{0}")]
    Refused(String),
    /// Only a new process can send again.
    #[error("the producer cannot go on: {0}")]
    Fatal(String),
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database does not respond")]
    Silent,
    #[error("the broker acknowledged none of {0} events")]
    Refused(usize),
    #[error("the broker does not respond; {0} events stay in the outbox")]
    NotSent(usize),
    #[error("too long passed between reading and sending")]
    Stale,
    #[error(transparent)]
    Fatal(SendError),
}

/// Publishes while this process leads, until `stop` is cancelled.
pub async fn publish(outbox: Outbox, service: &'static str, send: Sender, stop: CancellationToken) {
    let (backoff, mut failures) = (Backoff::new(MIN_BACKOFF, MAX_BACKOFF), 0);
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let Err(error) = lead(&outbox, service, &send, &stop).await else { continue };
        // A round that went well for a while resets the backoff.
        failures = if begun.elapsed() > 2 * TICK { 1 } else { failures + 1 };
        FAILED.get_or_create(&ByService::new(service)).inc();
        tracing::error!(service, %error, failures, "the relay cannot publish the outbox; it retries");
        if matches!(error, RelayError::Fatal(_)) {
            // Only a new process gets a new producer.
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.after(failures)) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn lead(
    outbox: &Outbox,
    service: &'static str,
    send: &Sender,
    stop: &CancellationToken,
) -> Result<(), RelayError> {
    let mut session = leader::connect(&outbox.db).await?;
    if !leader::follow(&mut session, outbox, stop).await? {
        return in_time(session.close()).await;
    }
    tracing::info!(service, "this process publishes the outbox");
    LEADS.get_or_create(&ByService::new(service)).set(1);
    let relay = Relay { outbox, service, send, session, water: LowWater::default(), observed: None };
    let ended = relay.run(stop).await;
    for gauge in [&LEADS, &PENDING, &AGE] {
        gauge.get_or_create(&ByService::new(service)).set(0);
    }
    ended
}

struct Relay<'a> {
    outbox: &'a Outbox,
    service: &'static str,
    send: &'a Sender,
    session: PgConnection,
    water: LowWater,
    observed: Option<Instant>,
}

impl Relay<'_> {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), RelayError> {
        let _listening = leader::listen(&self.outbox.db, self.outbox.wake.clone()).await?;
        let mut acknowledged = Vec::new();
        loop {
            let read_at = Instant::now();
            let rows = self.read(&acknowledged).await?;
            let count = rows.len();
            if let Some(changed) = &self.outbox.changed {
                changed.note(rows.iter().map(|record| record.key));
            }
            acknowledged = self.send(rows, read_at, stop).await?;
            PUBLISHED.get_or_create(&ByService::new(self.service)).inc_by(acknowledged.len() as u64);
            if self.observed.is_none_or(|at| at.elapsed() >= TICK) {
                self.observe(&acknowledged).await?;
            }
            let more = count == MAX_IN_FLIGHT || acknowledged.len() < count;
            if stop.is_cancelled() && !more {
                // What this process committed has been read by now; other replicas have their own relays.
                self.read(&acknowledged).await?;
                return in_time(self.session.close()).await;
            }
            if more && !acknowledged.is_empty() {
                continue;
            }
            if more && stop.is_cancelled() {
                return Err(RelayError::NotSent(count));
            }
            let pause = if acknowledged.is_empty() { TICK } else { DELETE_WITHIN };
            tokio::select! {
                () = self.outbox.wake.woken() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Deletes what was acknowledged, and reads the next events.
    async fn read(&mut self, acknowledged: &[i64]) -> Result<Vec<Record>, RelayError> {
        let rows = sqlx::query!(
            "with gone as (delete from outbox where id = any($1))
             select id, event_id, topic, key, version, type as event_type, payload, actor, causation_id, traceparent, created_at
             from outbox where id > $2 and id <> all($1) order by id limit $3",
            acknowledged,
            self.water.mark(),
            MAX_IN_FLIGHT as i64,
        );
        let rows = in_time(rows.fetch_all(&mut self.session)).await?;
        let records = rows.into_iter().map(|row| Record {
            topic: row.topic,
            partition: 0,
            offset: row.id,
            key: row.key,
            version: row.version,
            event_id: row.event_id,
            event_type: row.event_type,
            payload: row.payload,
            actor: row.actor,
            causation_id: row.causation_id,
            occurred_at: row.created_at,
            traceparent: row.traceparent,
        });
        Ok(records.collect())
    }

    /// Sends the first event of each key, waits for all, and returns the rows that may be deleted. The others are read again.
    async fn send(
        &mut self,
        records: Vec<Record>,
        read_at: Instant,
        stop: &CancellationToken,
    ) -> Result<Vec<i64>, RelayError> {
        let (mut deliveries, mut under_way) = (Vec::with_capacity(records.len()), HashSet::<Uuid>::new());
        for record in &records {
            if read_at.elapsed() > FRESH {
                return Err(RelayError::Stale);
            }
            // One of each key at a time: behind one that the broker refuses, the next must not arrive first.
            if under_way.insert(record.key) {
                let acknowledgement = (self.send)(record);
                deliveries.push(async move { (record, acknowledgement.await) });
            }
        }
        let outcomes = self.wait(join_all(deliveries), records.len(), stop).await?;
        let (mut acknowledged, mut is_full) = (Vec::with_capacity(outcomes.len()), false);
        for (record, outcome) in outcomes {
            match outcome {
                Ok(()) => acknowledged.push(record.offset),
                // These are sent in the next round.
                Err(SendError::QueueFull) => is_full = true,
                Err(error @ SendError::Fatal(_)) => return Err(RelayError::Fatal(error)),
                Err(SendError::Refused(why)) => self.log_refused(record, &why),
            }
        }
        if acknowledged.is_empty() && !records.is_empty() && !is_full {
            return Err(RelayError::Refused(records.len()));
        }
        self.water.published(acknowledged.iter().copied().max());
        Ok(acknowledged)
    }

    /// The lock is kept while the broker is away: no other process could send either.
    async fn wait<T>(
        &mut self,
        outcomes: impl Future<Output = T>,
        count: usize,
        stop: &CancellationToken,
    ) -> Result<T, RelayError> {
        tokio::pin!(outcomes);
        let (mut ticks, mut last_ticks) = (0_u32, 0);
        loop {
            tokio::select! {
                outcomes = &mut outcomes => return Ok(outcomes),
                () = tokio::time::sleep(TICK) => ticks += 1,
            }
            self.observe(&[]).await?;
            if ticks == 2 {
                FAILED.get_or_create(&ByService::new(self.service)).inc();
                tracing::warn!(
                    service = self.service,
                    count,
                    "the broker acknowledges nothing; events stay in the outbox"
                );
            }
            last_ticks += u32::from(stop.is_cancelled());
            if last_ticks >= LAST_TICKS {
                return Err(RelayError::NotSent(count));
            }
        }
    }

    fn log_refused(&self, record: &Record, why: &str) {
        REFUSED.get_or_create(&ByService::new(self.service)).inc();
        tracing::error!(
            service = self.service,
            key = %record.key,
            version = record.version,
            why,
            "the broker refused an event; it is sent again"
        );
    }

    /// Updates the metrics, and the mark from which the outbox is read.
    async fn observe(&mut self, acknowledged: &[i64]) -> Result<(), RelayError> {
        let seen = sqlx::query!(
            r#"select pg_snapshot_xmin(snapshot)::text::bigint as "running!", pg_snapshot_xmax(snapshot)::text::bigint as "next!",
                 (select min(id) from outbox where id > $1) as first,
                 (select created_at from outbox where id > $1 and id <> all($2) order by id limit 1) as since,
                 (select count(*) from (select from outbox where id > $1 limit 100000) as waiting) as "pending!"
               from pg_current_snapshot() as snapshot"#,
            self.water.mark(),
            acknowledged,
        );
        let seen = in_time(seen.fetch_one(&mut self.session)).await?;
        self.water.raise(seen.running, seen.next, seen.first);
        let age = seen.since.map_or(0, |since| (OffsetDateTime::now_utc() - since).whole_seconds());
        PENDING.get_or_create(&ByService::new(self.service)).set(seen.pending - acknowledged.len() as i64);
        AGE.get_or_create(&ByService::new(self.service)).set(age);
        self.observed = Some(Instant::now());
        Ok(())
    }
}
