//! Events that could not be handled. While a key has a dead letter, it is parked: its later events become dead letters, too, so
//! that their order is kept. Redriving passes them to the handler in that order; the key is unparked when none is left. Dead
//! letters that can never be handled are discarded.

mod discard;

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::boot::clock::Clock;
use crate::boot::metrics::{self, ByConsumer};
use crate::event::consumer::{Consumer, HandleError, Record};
use crate::event::inbox;
use crate::rpc::error::Unexpected;

pub use discard::{AUDIT, Discard, DiscardError, Discarded, discard, discarded, is_discarded, unparked};

static DEAD: LazyLock<Family<ByConsumer, Counter>> =
    LazyLock::new(|| metrics::register("dead_letters", "Events that became dead letters", Family::default()));

#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub id: i64,
    pub consumer: String,
    pub record: Record,
    pub error: String,
    pub created_at: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// A record that does not decode as an event has no key, and no handler could handle it.
    #[error("records that do not decode as events are never redriven: discard them")]
    Unreadable,
    #[error("after {redriven} events: {error}")]
    Failed { redriven: i32, error: String },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

impl From<sqlx::Error> for RedriveError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unexpected(error.into())
    }
}

/// Oldest first.
pub async fn list(
    db: &PgPool,
    consumer: Option<&str>,
    after_id: i64,
    limit: i64,
) -> Result<Vec<DeadLetter>, Unexpected> {
    let rows = sqlx::query_as!(
        Row,
        "select id, consumer, key, topic, partition, partition_offset, event_id, version, type as event_type, payload, actor,
           causation_id, occurred_at, error, created_at
         from dead_letter where id > $1 and ($2::text is null or consumer = $2) order by id limit $3",
        after_id,
        consumer,
        limit,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(DeadLetter::from).collect())
}

/// Passes the dead letters of a key to the handler, each in its own transaction. Returns how many were handled.
pub async fn redrive(consumer: &Consumer, key: Uuid, actor: &str) -> Result<i32, RedriveError> {
    if key.is_nil() {
        return Err(RedriveError::Unreadable);
    }
    let mut redriven = 0;
    let failed = |error, redriven| match error {
        HandleError::Unexpected(error) if error.will_pass() => RedriveError::Unexpected(error),
        error => {
            tracing::warn!(consumer = consumer.name, %key, actor, redriven, %error, "dead letters were redriven, and one failed again");
            RedriveError::Failed { redriven, error: error.to_string() }
        }
    };
    loop {
        let mut tx = consumer.db.begin().await?;
        lock(&mut tx, consumer.name, key).await?;
        let Some(letter) = take_first(&mut tx, consumer.name, key).await? else { break };
        inbox::handle(consumer, &mut tx, &letter.record).await.map_err(|error| failed(error, redriven))?;
        tx.commit().await?;
        consumer.handler.committed();
        redriven += 1;
    }
    if redriven > 0 {
        tracing::info!(consumer = consumer.name, %key, actor, redriven, "the dead letters of a key were redriven; the key is unparked");
    }
    Ok(redriven)
}

/// Adds a dead letter, which parks its key. A record without a key may be delivered again, also after it was discarded; then
/// this does nothing.
pub async fn insert(
    db: &mut PgConnection,
    consumer: &str,
    clock: &Clock,
    record: &Record,
    error: &str,
) -> Result<(), Unexpected> {
    if record.key.is_nil() && is_discarded(db, consumer, record).await? {
        return Ok(());
    }
    let inserted = sqlx::query!(
        "insert into dead_letter
           (consumer, key, topic, partition, partition_offset, event_id, version, type, payload, actor, causation_id,
            occurred_at, error, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         on conflict on constraint dead_letter_record do nothing",
        consumer,
        record.key,
        record.topic,
        record.partition,
        record.offset,
        record.event_id,
        record.version,
        record.event_type,
        record.payload,
        record.actor,
        record.causation_id,
        record.occurred_at,
        error,
        clock.now(),
    )
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 && !record.key.is_nil() {
        // The inbox skips duplicates, so this would be another event, which must not be lost.
        let text = format!("{} {} {} has a dead letter already", record.topic, record.partition, record.offset);
        return Err(Unexpected::Broken(text));
    }
    DEAD.get_or_create(&ByConsumer::new(consumer)).inc_by(inserted.rows_affected());
    Ok(())
}

/// Whether the key is still parked. Waits for a redrive that is handling one of its dead letters.
pub(crate) async fn is_parked(tx: &mut PgConnection, consumer: &str, key: Uuid) -> Result<bool, sqlx::Error> {
    lock(tx, consumer, key).await?;
    sqlx::query_scalar!(
        r#"select exists (select from dead_letter where consumer = $1 and key = $2) as "parked!""#,
        consumer,
        key,
    )
    .fetch_one(tx)
    .await
}

async fn lock(tx: &mut PgConnection, consumer: &str, key: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 1))", consumer, key.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

async fn take_first(tx: &mut PgConnection, consumer: &str, key: Uuid) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "delete from dead_letter
         where id = (select id from dead_letter where consumer = $1 and key = $2 order by id limit 1)
         returning id, consumer, key, topic, partition, partition_offset, event_id, version, type as event_type, payload, actor,
           causation_id, occurred_at, error, created_at",
        consumer,
        key,
    );
    Ok(row.fetch_optional(tx).await?.map(DeadLetter::from))
}

struct Row {
    id: i64,
    consumer: String,
    key: Uuid,
    topic: String,
    partition: i32,
    partition_offset: i64,
    event_id: Uuid,
    version: i64,
    event_type: String,
    payload: Vec<u8>,
    actor: String,
    causation_id: Option<Uuid>,
    occurred_at: OffsetDateTime,
    error: String,
    created_at: OffsetDateTime,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let record = Record {
            topic: row.topic,
            partition: row.partition,
            offset: row.partition_offset,
            key: row.key,
            version: row.version,
            event_id: row.event_id,
            event_type: row.event_type,
            payload: row.payload,
            actor: row.actor,
            causation_id: row.causation_id,
            occurred_at: row.occurred_at,
            traceparent: None,
        };
        Self { id: row.id, consumer: row.consumer, record, error: row.error, created_at: row.created_at }
    }
}
