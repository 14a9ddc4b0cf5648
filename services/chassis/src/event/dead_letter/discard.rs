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

/// Whether this record was discarded earlier.
pub async fn is_discarded(db: &mut PgConnection, consumer: &str, record: &Record) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from dead_letter_discard
             where topic = $1 and partition = $2 and partition_offset = $3 and consumer = $4 and key = $5) as "discarded!""#,
        record.topic,
        record.partition,
        record.offset,
        consumer,
        record.key,
    )
    .fetch_one(db)
    .await
}
