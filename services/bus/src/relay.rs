//! Publishes what stands in the outbox of one service.
//!
//! One relay is active per database: the one whose connection holds an advisory lock. That same connection reads the
//! outbox and deletes from it, so whoever lost the lock cannot read on; and Postgres ends the connection when it was
//! silent for three seconds, so a relay that was frozen wakes up without it.
//!
//! Rows are always read from the start. Ids are drawn before transactions commit, so a reader that remembered the last id
//! would miss those that commit late.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chassis::consume::Record;
use chassis::metrics::{self, Of};
use chassis::outbox::Outbox;
use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::wire;

/// How many events are on their way at once.
const BATCH: i64 = 500;
/// A net under the wake-ups, and the sign of life that keeps the connection.
const TICK: Duration = Duration::from_secs(1);
/// How old what was read may be when it is sent: younger than the silence after which the lock is lost.
const FRESH: Duration = Duration::from_secs(2);
const FOLLOW: Duration = Duration::from_millis(250);
/// Replicas that do not lead tell the one that does, this often at most.
const NOTIFY_EVERY: Duration = Duration::from_millis(5);

static PUBLISHED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("outbox_published", "Events that the broker acknowledged", Family::default()));
static FAILED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("outbox_failures", "Rounds of the relay that failed", Family::default()));
static LEADS: LazyLock<Family<Of, Gauge>> =
    LazyLock::new(|| metrics::register("outbox_leader", "Whether this process publishes", Family::default()));

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the broker refused an event: {0}")]
    Refused(rdkafka::error::KafkaError),
    #[error("too long passed between reading and sending")]
    Stale,
    #[error("the producer cannot go on: {0}")]
    Fatal(String),
}

/// Publishes until told to stop, whenever this process leads.
pub async fn publish(outbox: Outbox, service: &'static str, producer: FutureProducer, stop: CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let ended = match lead(&outbox.db).await {
            Ok(Some(session)) => {
                tracing::info!(service, "this process publishes the outbox");
                LEADS.get_or_create(&Of::new(service)).set(1);
                let ended = Relay { outbox: &outbox, service, producer: &producer, session }.run(&stop).await;
                LEADS.get_or_create(&Of::new(service)).set(0);
                ended
            }
            Ok(None) => follow(&outbox, &stop).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                FAILED.get_or_create(&Of::new(service)).inc();
                tracing::error!(service, %error, failures, "the outbox is not being published; it is tried again");
                if matches!(error, RelayError::Fatal(_)) {
                    // Only a new process gets a new producer.
                    return;
                }
                let rest = Duration::from_millis(50 << failures.min(6));
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

/// The connection that holds the lock, or none if another process has it.
async fn lead(db: &PgPool) -> Result<Option<PgConnection>, sqlx::Error> {
    let options = db.connect_options().as_ref().clone();
    // What is deleted twice was published twice, which is allowed; so nobody waits for the disk here.
    let options = options.options([("idle_session_timeout", "3s"), ("synchronous_commit", "off")]);
    let mut session = PgConnection::connect_with(&options).await?;
    let lock = sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtextextended('outbox relay', 0)) as "leads!""#);
    if lock.fetch_one(&mut session).await? {
        return Ok(Some(session));
    }
    session.close().await?;
    Ok(None)
}

/// Passes wake-ups on to whoever leads, until it is time to try again.
async fn follow(outbox: &Outbox, stop: &CancellationToken) -> Result<(), RelayError> {
    let until = tokio::time::Instant::now() + FOLLOW;
    loop {
        tokio::select! {
            () = outbox.wake.woken() => {}
            () = tokio::time::sleep_until(until) => return Ok(()),
            () = stop.cancelled() => return Ok(()),
        }
        sqlx::query!("select pg_notify('outbox', '')").execute(&outbox.db).await?;
        tokio::time::sleep(NOTIFY_EVERY).await;
    }
}

struct Relay<'a> {
    outbox: &'a Outbox,
    service: &'static str,
    producer: &'a FutureProducer,
    session: PgConnection,
}

impl Relay<'_> {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), RelayError> {
        let heard = self.listen().await?;
        let mut acknowledged = Vec::new();
        loop {
            let read_at = Instant::now();
            let rows = self.read(&acknowledged).await?;
            acknowledged = self.send(rows, read_at).await?;
            if let Some((_, why)) = self.producer.client().fatal_error() {
                return Err(RelayError::Fatal(why));
            }
            if !acknowledged.is_empty() {
                PUBLISHED.get_or_create(&Of::new(self.service)).inc_by(acknowledged.len() as u64);
                continue;
            }
            if stop.is_cancelled() {
                heard.cancel();
                return Ok(self.session.close().await?);
            }
            tokio::select! {
                () = self.outbox.wake.woken() => {}
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// What other replicas say becomes a wake-up of our own, until the token is cancelled or dropped with the relay.
    async fn listen(&self) -> Result<Listening, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.outbox.db).await?;
        listener.listen("outbox").await?;
        let (wake, token) = (self.outbox.wake.clone(), CancellationToken::new());
        let stop = token.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    heard = listener.recv() => match heard {
                        Ok(_) => wake.wake(),
                        // The tick goes on without it; the next leader listens anew.
                        Err(error) => return tracing::warn!(%error, "other replicas are not heard any more"),
                    },
                    () = stop.cancelled() => return,
                }
            }
        });
        Ok(Listening(token))
    }

    /// Deletes what was acknowledged, and reads what is there besides.
    async fn read(&mut self, acknowledged: &[i64]) -> Result<Vec<(i64, Record)>, sqlx::Error> {
        let rows = sqlx::query!(
            "with gone as (delete from outbox where id = any($1))
             select id, event_id, topic, key, version, type as kind, payload, actor, causation_id, traceparent, created_at
             from outbox where id <> all($1) order by id limit $2",
            acknowledged,
            BATCH,
        )
        .fetch_all(&mut self.session)
        .await?;
        let records = rows.into_iter().map(|row| {
            let record = Record {
                topic: row.topic,
                partition: 0,
                offset: row.id,
                key: row.key,
                version: row.version,
                event_id: row.event_id,
                kind: row.kind,
                payload: row.payload,
                actor: row.actor,
                causation_id: row.causation_id,
                occurred_at: row.created_at,
                traceparent: row.traceparent,
            };
            (row.id, record)
        });
        Ok(records.collect())
    }

    /// Hands everything to the producer in order, waits for all, and says which may go. Behind a record that failed,
    /// nothing of its key may: it is all read again.
    async fn send(&mut self, rows: Vec<(i64, Record)>, read_at: Instant) -> Result<Vec<i64>, RelayError> {
        let mut deliveries = Vec::new();
        for (id, record) in &rows {
            if read_at.elapsed() > FRESH {
                return Err(RelayError::Stale);
            }
            match self.produce(record) {
                Ok(delivery) => deliveries.push((*id, record.key, delivery)),
                // The producer's queue is full: the rest has time.
                Err(rdkafka::error::KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull)) => {
                    break;
                }
                Err(error) => return Err(RelayError::Refused(error)),
            }
        }
        let outcomes =
            join_all(deliveries.into_iter().map(|(id, key, delivery)| async move { (id, key, delivery.await) }));
        tokio::pin!(outcomes);
        let outcomes = loop {
            tokio::select! {
                outcomes = &mut outcomes => break outcomes,
                () = tokio::time::sleep(TICK) => {}
            }
            // The broker is away. The lock is kept meanwhile, for nobody else could do better.
            self.session.ping().await?;
        };
        let (mut acknowledged, mut broken) = (Vec::new(), HashSet::<Uuid>::new());
        for (id, key, outcome) in outcomes {
            match outcome {
                Ok(Ok(_)) if !broken.contains(&key) => acknowledged.push(id),
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => {
                    tracing::error!(service = self.service, %key, %error, "an event was not acknowledged");
                    broken.insert(key);
                }
                Err(_) => {
                    broken.insert(key);
                }
            }
        }
        if broken.is_empty() || !acknowledged.is_empty() {
            return Ok(acknowledged);
        }
        Err(RelayError::Refused(rdkafka::error::KafkaError::Canceled))
    }

    fn produce(&self, record: &Record) -> Result<DeliveryFuture, rdkafka::error::KafkaError> {
        let key = record.key.to_string();
        let message = FutureRecord::to(&record.topic).key(&key).payload(&record.payload);
        let message = message.headers(wire::headers(record, self.service));
        self.producer.send_result(message).map_err(|(error, _)| error)
    }
}

/// Ends the listening when the relay ends.
struct Listening(CancellationToken);

impl Listening {
    fn cancel(&self) {
        self.0.cancel();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
