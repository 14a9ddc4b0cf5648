//! Events that could not be handled. While a key has one, its later events are put behind it, so that their order holds;
//! redriving hands them to the consumer in that order, and the key is free again when none is left.

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::clock::Clock;
use crate::consume::{Consumer, HandleError, Record};
use crate::error::Unexpected;
use crate::inbox;
use crate::metrics::{self, Of};

static DEAD: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("dead_letters", "Events put among the dead letters", Family::default()));

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
    let rows = sqlx::query!(
        "select id, consumer, key, topic, partition, partition_offset, event_id, version, type as kind, payload, actor,
           causation_id, occurred_at, error, created_at
         from dead_letter where id > $1 and ($2::text is null or consumer = $2) order by id limit $3",
        after_id,
        consumer,
        limit,
    )
    .fetch_all(db)
    .await?;
    let letters = rows.into_iter().map(|row| DeadLetter {
        id: row.id,
        consumer: row.consumer,
        error: row.error,
        created_at: row.created_at,
        record: Record {
            topic: row.topic,
            partition: row.partition,
            offset: row.partition_offset,
            key: row.key,
            version: row.version,
            event_id: row.event_id,
            kind: row.kind,
            payload: row.payload,
            actor: row.actor,
            causation_id: row.causation_id,
            occurred_at: row.occurred_at,
            traceparent: None,
        },
    });
    Ok(letters.collect())
}

/// Hands the letters of a key to the consumer, each in a transaction of its own. How many were handled.
pub async fn redrive(consumer: &Consumer, clock: &Clock, key: Uuid) -> Result<i32, RedriveError> {
    let mut redriven = 0;
    loop {
        let mut tx = consumer.db.begin().await?;
        lock(&mut tx, consumer.name, key).await?;
        let Some(letter) = first(&mut tx, consumer.name, key).await? else { break };
        let failed = |error: HandleError| RedriveError::Failed { redriven, error: error.to_string() };
        inbox::handle(consumer, &mut tx, &letter.record).await.map_err(failed)?;
        let before = version(&mut tx, consumer.name, key).await?;
        let versions = HashMap::from([(key, letter.record.version)]);
        inbox::advance(&mut tx, consumer.name, &versions, |_| before).await?;
        sqlx::query!("delete from dead_letter where id = $1", letter.id).execute(&mut *tx).await?;
        tx.commit().await?;
        consumer.handler.committed();
        redriven += 1;
    }
    if redriven > 0 {
        tracing::info!(consumer = consumer.name, %key, redriven, at = %clock.now(), "a key was redriven and is free again");
    }
    Ok(redriven)
}

/// Puts an event aside, and its key with it.
pub async fn insert(
    db: &mut PgConnection,
    consumer: &str,
    clock: &Clock,
    record: &Record,
    error: &str,
) -> Result<(), Unexpected> {
    sqlx::query!(
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
        record.kind,
        record.payload,
        record.actor,
        record.causation_id,
        record.occurred_at,
        error,
        clock.now(),
    )
    .execute(db)
    .await?;
    DEAD.get_or_create(&Of::new(consumer)).inc();
    Ok(())
}

/// Whether the key is parked, once whoever redrives it is done.
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

async fn version(tx: &mut PgConnection, consumer: &str, key: Uuid) -> Result<i64, sqlx::Error> {
    let version = sqlx::query_scalar!("select version from inbox where consumer = $1 and stream = $2", consumer, key);
    Ok(version.fetch_optional(tx).await?.unwrap_or(0))
}

async fn first(tx: &mut PgConnection, consumer: &str, key: Uuid) -> Result<Option<DeadLetter>, sqlx::Error> {
    let row = sqlx::query!(
        "select id, topic, partition, partition_offset, event_id, version, type as kind, payload, actor, causation_id,
           occurred_at, error, created_at
         from dead_letter where consumer = $1 and key = $2 order by id limit 1",
        consumer,
        key,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| DeadLetter {
        id: row.id,
        consumer: consumer.to_owned(),
        error: row.error,
        created_at: row.created_at,
        record: Record {
            topic: row.topic,
            partition: row.partition,
            offset: row.partition_offset,
            key,
            version: row.version,
            event_id: row.event_id,
            kind: row.kind,
            payload: row.payload,
            actor: row.actor,
            causation_id: row.causation_id,
            occurred_at: row.occurred_at,
            traceparent: None,
        },
    }))
}
