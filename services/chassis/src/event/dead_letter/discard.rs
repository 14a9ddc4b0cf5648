//! Discards dead letters: moves rows to the audit trail, in one transaction.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::lock;
use crate::boot::clock::Clock;
use crate::boot::metrics::{self, ByConsumer};
use crate::event::consumer::Record;
use crate::rpc::error::Unexpected;

/// The audit trail, an append-only table.
pub const AUDIT: &str = "dead_letter_discard";

static DISCARDED: LazyLock<Family<ByConsumer, Counter>> = LazyLock::new(|| {
    metrics::register("dead_letters_discarded", "Dead letters that operators discarded", Family::default())
});

/// The dead letters of a key to discard, by whom and why.
#[derive(Debug, Clone, Copy)]
pub struct Discard<'a> {
    pub consumer: &'a str,
    pub key: Uuid,
    pub ids: &'a [i64],
    pub reason: &'a str,
    pub actor: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// One of them does not exist (any more), so none was discarded.
    #[error("{found} of {wanted} dead letters exist")]
    Missing { found: usize, wanted: usize },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

impl From<sqlx::Error> for DiscardError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unexpected(error.into())
    }
}

/// Discards all of them, or none. The key is unparked when no dead letter of it is left; those that are left can be redriven.
pub async fn discard(db: &PgPool, clock: &Clock, what: Discard<'_>) -> Result<(), DiscardError> {
    let Discard { consumer, key, ids, reason, actor } = what;
    let mut tx = db.begin().await?;
    lock(&mut tx, consumer, key).await?;
    let discarded = sqlx::query!(
        "with gone as (delete from dead_letter where consumer = $1 and key = $2 and id = any($3) returning *)
         insert into dead_letter_discard
           (dead_letter_id, consumer, key, topic, partition, partition_offset, event_id, version, type, payload, actor,
            causation_id, occurred_at, error, created_at, reason, discarded_by, discarded_at)
         select id, consumer, key, topic, partition, partition_offset, event_id, version, type, payload, actor,
           causation_id, occurred_at, error, created_at, $4, $5, $6
         from gone",
        consumer,
        key,
        ids,
        reason,
        actor,
        clock.now(),
    );
    let discarded = discarded.execute(&mut *tx).await?.rows_affected();
    if discarded != ids.len() as u64 {
        let found = usize::try_from(discarded).unwrap_or_default();
        return Err(DiscardError::Missing { found, wanted: ids.len() });
    }
    tx.commit().await?;
    DISCARDED.get_or_create(&ByConsumer::new(consumer)).inc_by(discarded);
    tracing::warn!(consumer, %key, ?ids, actor, reason, "dead letters were discarded");
    Ok(())
}

/// A discarded record: its key, and its position in the topic.
#[derive(Debug, Clone)]
pub struct Discarded {
    pub key: Uuid,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Which of these keys were parked for a consumer, and are not any more, as what could not be handled was discarded.
pub async fn unparked(db: &mut PgConnection, consumer: &str, keys: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select distinct key from dead_letter_discard as discarded where consumer = $1 and key = any($2)
             and not exists (select from dead_letter where dead_letter.consumer = $1 and dead_letter.key = discarded.key)"#,
        consumer,
        keys,
    )
    .fetch_all(db)
    .await
}

/// The oldest discarded records, at most `limit`.
pub async fn discarded(db: &PgPool, limit: i64) -> Result<Vec<Discarded>, Unexpected> {
    let rows = sqlx::query_as!(
        Discarded,
        r#"select key, topic, partition, partition_offset as "offset" from dead_letter_discard
           order by dead_letter_id limit $1"#,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Whether this event was discarded earlier, in this record or in another one that repeats it. One without a key is only the same at
/// the same position.
pub async fn is_discarded(db: &mut PgConnection, consumer: &str, record: &Record) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from dead_letter_discard
             where consumer = $1 and key = $2 and topic = $3
               and case when key = $7 then partition = $4 and partition_offset = $5 else version = $6 end) as "discarded!""#,
        consumer,
        record.key,
        record.topic,
        record.partition,
        record.offset,
        record.version,
        Uuid::nil(),
    )
    .fetch_one(db)
    .await
}
