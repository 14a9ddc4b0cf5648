//! Rebuilds the figures from the topic, beside the live ones, and swaps both.
//!
//! One replica does it, under a lease. Each unit of the job reads some records and adds them to the projection that is built.
//! When it has reached the end of the topic, it makes the live projection wait, reads the few records that came since, and
//! makes the new projection the live one, all in one transaction. An event that both have counted is not counted again, as each
//! projection has the last version of every order: so there is neither a gap nor a repeat.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chassis::event::dead_letter::{is_discarded, unparked};
use chassis::event::{HandleError, Handler, Progress, Reading, Record, Topic, TopicSlot};
use chassis::{Caller, Next, Unexpected, timestamp};
use contracts::souk::analytics::v1::*;
use sqlx::PgConnection;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::error::Error;
use crate::service::Service;
use crate::{fact, project};

pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// If the builder does nothing for so long, another replica begins again.
const LEASE: time::Duration = time::Duration::seconds(30);
/// How many records may be left when both projections are swapped, as the live one waits while they are read.
const FEW: i64 = 200;
/// How many orders with events that cannot be handled a rebuild bears.
const MAX_PARKED: usize = 10_000;
/// How often the topic is read again because operators discarded dead letters meanwhile.
const MAX_READINGS: u32 = 5;
/// A rebuild is given up after so many failed units in a row, which takes some minutes.
const MAX_FAILURES: u32 = 60;

/// The rebuild that this replica does.
pub(crate) struct Rebuild {
    topic: TopicSlot,
    /// Tells replicas apart.
    builder: Uuid,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Failed units since the last one that did not fail.
    failures: u32,
    /// How often the topic was read from the beginning.
    readings: u32,
}

struct Running {
    projection_id: i64,
    reading: Box<dyn Reading>,
    /// What was read since the last commit: if a unit fails, the next one adds it.
    uncommitted: Vec<Record>,
    parked: Parked,
    is_last_reading: bool,
}

/// What became of the swap of both projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swap {
    /// Too many records are left.
    NotYet,
    Done,
    /// The topic has to be read again from its beginning.
    ReadAgain,
}

/// Orders with an event that cannot be handled: their later events do not count, as they do not for the consumer.
type Parked = HashSet<Uuid>;

impl Rebuild {
    pub(crate) fn new(topic: &TopicSlot, builder: Uuid) -> Self {
        Self { topic: topic.clone(), builder, state: Mutex::default() }
    }
}

/// Begins a rebuild, unless one runs, which is returned then. Which replica does it is decided by the job.
pub(crate) async fn request(service: &Service, caller: &Caller) -> Result<RebuildProjectionResponse, Error> {
    // The update changes nothing: it makes the statement return the row that is there.
    let building = sqlx::query!(
        r#"insert into projection (state, created_at, requested_by) values ('BUILDING', $1, $2)
           on conflict (state) where state in ('BUILDING', 'LIVE') do update set state = excluded.state
           returning projection_id, created_at, read_records, total_records, xmax = '0' as "is_new!""#,
        service.clock.now(),
        caller.actor(),
    );
    let building = building.fetch_one(&service.db).await?;
    let projection_id = building.projection_id;
    if building.is_new {
        tracing::info!(projection_id, actor = caller.actor(), "a rebuild of the figures was requested");
    }
    let projection = Projection {
        projection_id,
        create_time: Some(timestamp(building.created_at)),
        live_time: None,
        read_records: building.read_records,
        total_records: building.total_records,
    };
    Ok(RebuildProjectionResponse { projection: Some(projection) })
}

/// Does a part of the rebuild. If that fails, the next unit repeats it, and too many failures end the rebuild.
pub(crate) async fn rebuild(service: Arc<Service>) -> Result<Next, Unexpected> {
    let Some(topic) = service.rebuild.topic.get() else { return Ok(Next::AfterPause) };
    let mut state = service.rebuild.state.lock().await;
    let Some(projection_id) = claim(&service).await? else {
        *state = State::default();
        return Ok(Next::AfterPause);
    };
    match state.go_on(&service, topic.as_ref(), projection_id).await {
        Ok(()) => {
            state.failures = 0;
            Ok(Next::AtOnce)
        }
        Err(error) => {
            state.failures += 1;
            if state.failures >= MAX_FAILURES || matches!(error, Unexpected::Broken(_)) {
                give_up(&service, projection_id, &error).await?;
                *state = State::default();
            }
            Err(error)
        }
    }
}

impl State {
    async fn go_on(&mut self, service: &Service, topic: &dyn Topic, projection_id: i64) -> Result<(), Unexpected> {
        if self.running.as_ref().is_none_or(|it| it.projection_id != projection_id) {
            tracing::info!(projection_id, "the figures are rebuilt from the beginning of the topic");
            let (uncommitted, parked) = (Vec::new(), Parked::new());
            let reading = topic.open().await?;
            self.readings += 1;
            let is_last_reading = self.readings >= MAX_READINGS;
            self.running = Some(Running { projection_id, reading, uncommitted, parked, is_last_reading });
        }
        let Some(it) = &mut self.running else { return Ok(()) };
        if it.uncommitted.is_empty() {
            it.uncommitted = it.reading.next().await?;
        }
        if !it.uncommitted.is_empty() {
            it.add(service).await?;
        } else if it.try_to_finish(service).await? != Swap::NotYet {
            self.running = None;
        }
        Ok(())
    }
}

/// Ends a rebuild that failed. What it counted is deleted as that of any projection that is not shown.
async fn give_up(service: &Service, projection_id: i64, why: &Unexpected) -> Result<(), Unexpected> {
    let mut tx = service.db.begin().await?;
    let given_up = sqlx::query!(
        "update projection set state = 'RETIRED' where projection_id = $1 and state = 'BUILDING' and builder = $2",
        projection_id,
        service.rebuild.builder,
    );
    if given_up.execute(&mut *tx).await?.rows_affected() == 1 {
        sqlx::query!("update projection set rebuild_failure = $1 where state = 'LIVE'", why.to_string())
            .execute(&mut *tx)
            .await?;
        tracing::error!(projection_id, error = %why, "a rebuild of the figures was given up");
    }
    Ok(tx.commit().await?)
}

/// The projection that is to be built, if this replica is the one to do it.
async fn claim(service: &Service) -> Result<Option<i64>, Unexpected> {
    let now = service.clock.now();
    let claimed = sqlx::query_scalar!(
        "update projection set builder = $1, leased_until = $3
         where state = 'BUILDING' and (builder is null or builder = $1 or leased_until < $2) returning projection_id",
        service.rebuild.builder,
        now,
        now + LEASE,
    );
    Ok(claimed.fetch_optional(&service.db).await?)
}

impl Running {
    /// Adds what was read.
    async fn add(&mut self, service: &Service) -> Result<(), Unexpected> {
        let mut tx = service.db.begin().await?;
        self.lock(&mut tx, service).await?;
        let parked = self.add_all(&mut tx, service).await?;
        self.save(&mut tx, self.reading.progress()).await?;
        tx.commit().await?;
        self.note_committed(parked);
        Ok(())
    }

    fn note_committed(&mut self, parked: Parked) {
        self.uncommitted.clear();
        self.parked = parked;
    }

    /// Looks for records that came meanwhile, and makes the projection the live one if these are few.
    async fn try_to_finish(&mut self, service: &Service) -> Result<Swap, Unexpected> {
        self.reading.look_for_end().await?;
        let Progress { read, total } = self.reading.progress();
        if total - read > FEW {
            return Ok(Swap::NotYet);
        }
        self.swap(service).await
    }

    /// The one transaction in which the topic is read: while it waits, the live projection does. Reading is bounded by two
    /// seconds at a time; if that is not enough, the transaction is rolled back, and the next unit adds what was read.
    async fn swap(&mut self, service: &Service) -> Result<Swap, Unexpected> {
        let mut tx = service.db.begin().await?;
        sqlx::query!("select pg_advisory_xact_lock(hashtextextended('live projection', 2))").execute(&mut *tx).await?;
        self.lock(&mut tx, service).await?;
        // What the live projection has counted is before this end: it counts nothing more until this transaction is over.
        self.reading.look_for_end().await?;
        let Progress { read, total } = self.reading.progress();
        if total - read > FEW * 5 {
            return Ok(Swap::NotYet);
        }
        loop {
            let records = self.reading.next().await?;
            if records.is_empty() {
                break;
            }
            self.uncommitted.extend(records);
        }
        let parked = self.add_all(&mut tx, service).await?;
        // The live projection has what came after an event that was discarded since it was read here, so it is read again. What is
        // counted already is not counted twice.
        let keys: Vec<_> = parked.iter().copied().collect();
        let unparked = unparked(&mut tx, roster::ANALYTICS.name, &keys).await?.len();
        if unparked > 0 && !self.is_last_reading {
            tracing::info!(
                unparked,
                "dead letters of orders were discarded during a rebuild, which reads the topic again"
            );
            return Ok(Swap::ReadAgain);
        }
        self.save(&mut tx, self.reading.progress()).await?;
        sqlx::query!("update projection set state = 'RETIRED' where state = 'LIVE'").execute(&mut *tx).await?;
        sqlx::query!(
            "update projection set state = 'LIVE', live_at = $2 where projection_id = $1",
            self.projection_id,
            service.clock.now(),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.note_committed(parked);
        let (projection_id, parked) = (self.projection_id, self.parked.len());
        tracing::info!(projection_id, parked, records = total, "the rebuilt figures are the live ones");
        Ok(Swap::Done)
    }

    /// Until the commit, this replica is the builder.
    async fn lock(&self, tx: &mut PgConnection, service: &Service) -> Result<(), Unexpected> {
        let ours = sqlx::query_scalar!(
            "select projection_id from projection
             where projection_id = $1 and state = 'BUILDING' and builder = $2 for update",
            self.projection_id,
            service.rebuild.builder,
        );
        match ours.fetch_optional(tx).await? {
            Some(_) => Ok(()),
            None => Err(Unexpected::Peer { peer: "another replica", source: "it rebuilds the figures now".into() }),
        }
    }

    /// Adds the events that count. If they cannot be handled together, they are handled one by one, as the consumer does.
    /// Returns the orders that are parked then.
    async fn add_all(&self, tx: &mut PgConnection, service: &Service) -> Result<Parked, Unexpected> {
        let mut parked = self.parked.clone();
        let wanted = self.uncommitted.iter().filter(|record| service.wants(&record.event_type));
        let wanted: Vec<_> = wanted.filter(|record| !parked.contains(&record.key)).collect();
        let facts: Result<Vec<_>, _> = wanted.iter().map(|record| fact::parse(record)).collect();
        let together = match facts {
            Ok(facts) => project::add(tx, self.projection_id, &facts).await,
            Err(error) => Err(error),
        };
        match together {
            Err(HandleError::Poisoned(_)) => {}
            Err(HandleError::Unexpected(error)) => return Err(error),
            Ok(()) => return Ok(parked),
        }
        // Poisoned events are found before anything is written.
        for record in wanted {
            if parked.contains(&record.key) {
                continue;
            }
            let alone = match fact::parse(record) {
                Ok(fact) => project::add(tx, self.projection_id, &[fact]).await,
                Err(error) => Err(error),
            };
            let error = match alone {
                Err(HandleError::Poisoned(error)) => error,
                Err(HandleError::Unexpected(error)) => return Err(error),
                Ok(()) => continue,
            };
            let (key, version) = (record.key, record.version);
            // Then the consumer handled what came after it.
            if is_discarded(tx, roster::ANALYTICS.name, record).await? {
                tracing::info!(%key, version, error, "a rebuild leaves out an event that was discarded");
                continue;
            }
            tracing::warn!(%key, version, error, "a rebuild leaves out an event that cannot be handled, and later ones of its order");
            parked.insert(key);
            if parked.len() > MAX_PARKED {
                return Err(Unexpected::Broken(format!("over {MAX_PARKED} orders have events that cannot be handled")));
            }
        }
        Ok(parked)
    }

    async fn save(&self, tx: &mut PgConnection, progress: Progress) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update projection set read_records = $2, total_records = $3 where projection_id = $1",
            self.projection_id,
            progress.read,
            progress.total,
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
