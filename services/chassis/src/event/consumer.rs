//! How a service consumes events; the crate `bus` reads them from Kafka.

use std::sync::Arc;

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use crate::rpc::error::Unexpected;

/// One event, as it was read.
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

/// One event that is to be handled, as a part of what its writer was doing.
pub struct Due<'a> {
    pub record: &'a Record,
    pub span: Span,
}

/// Why an event was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// It never will be without somebody's help: it becomes a dead letter, and its key is parked.
    #[error("{0}")]
    Poisoned(String),
    /// Tried again if it will pass, a dead letter if not.
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

/// Handles events in the transaction that remembers having done so. No network calls; what must be told to others goes to the
/// outbox. Each event arrives at least once and takes effect once; per key they arrive in order.
#[tonic::async_trait]
pub trait Handler: Send + Sync {
    /// Whether it wants events of this type; the others are skipped without touching the database.
    fn wants(&self, event_type: &str) -> bool;

    /// Handles the events that share a transaction, in their order. Rows are locked in one order, whatever the order of the
    /// events: other partitions' events are handled at the same time. If it fails, they are handed in again one by one.
    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError>;

    /// Called after the commit of what was handled, such as to wake a step.
    fn committed(&self) {}
}

/// One subscription of a service.
#[derive(Clone)]
pub struct Consumer {
    /// Kafka's group, and whose versions the inbox keeps; such as `inventory`.
    pub name: &'static str,
    pub topics: &'static [&'static str],
    /// Where its effects and its inbox are.
    pub db: PgPool,
    pub handler: Arc<dyn Handler>,
}
