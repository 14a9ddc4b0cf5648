//! Consumers and their handlers. The crate `bus` reads the events from Kafka.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use crate::rpc::error::Unexpected;

/// One event, read from a topic or an outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The aggregate's id.
    pub key: Uuid,
    pub version: i64,
    pub event_id: Uuid,
    /// Such as `souk.order.v1.OrderPlaced`.
    pub event_type: String,
    pub payload: Vec<u8>,
    pub actor: String,
    pub causation_id: Option<Uuid>,
    pub occurred_at: OffsetDateTime,
    pub traceparent: Option<String>,
}

/// One event to handle. Its span is a child of the producer's.
pub struct Due<'a> {
    pub record: &'a Record,
    pub span: Span,
}

/// How many records of a partition wait to be handled, of those that are assigned to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    pub partition: i32,
    pub waiting: i64,
}

/// Why an event was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// A poison message: retrying is useless. It becomes a dead letter, and its key is parked.
    #[error("{0}")]
    Poisoned(String),
    /// Retried if the error is transient; a dead letter if not.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unexpected(error.into())
    }
}

impl From<prost::DecodeError> for HandleError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Poisoned(format!("the event does not decode: {error}"))
    }
}

/// Handles events in the transaction that updates the inbox. It must not make network calls; events that it causes go to the
/// outbox. Each event is delivered at least once and takes effect once; those of one key are delivered in order.
#[tonic::async_trait]
pub trait Handler: Send + Sync {
    /// Whether it wants events of this type; the others are skipped without touching the database.
    fn wants(&self, event_type: &str) -> bool;

    /// Handles the events that share a transaction, in order. It must lock rows in a fixed order, as events of other partitions
    /// are handled at the same time. If it fails, the events are handled again one by one.
    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError>;

    /// How long the broker may hold events back for more of them, which costs less for each. Zero, unless nobody notices.
    fn gathers_for(&self) -> Duration {
        Duration::ZERO
    }

    /// Called after the commit, such as to wake a job.
    fn committed(&self) {}

    /// Called every few seconds with the partitions of one topic that are assigned to this process.
    fn observe_lag(&self, _partitions: &[PartitionLag]) {}
}

/// One subscription of a service.
#[derive(Clone)]
pub struct Consumer {
    /// The name of the consumer group, and in the inbox; such as `inventory`.
    pub name: &'static str,
    pub topics: &'static [&'static str],
    /// The database of its effects and its inbox.
    pub db: PgPool,
    pub handler: Arc<dyn Handler>,
}
