//! Events to publish. [`append`] adds one to the transaction of the change that it is about; the relay publishes it after
//! the commit, never before. Order and payment insert theirs in the statement that changes their rows (`record.rs` of each): a new
//! column of `outbox` is written there, too.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::boot::db::column;
use crate::boot::telemetry;
use crate::boot::wake::Wake;

/// One event of one aggregate. Append it after the aggregate's row was locked: that makes ids grow in the order of
/// commits for each key.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub event_id: Uuid,
    pub topic: &'static str,
    /// The aggregate's id.
    pub key: Uuid,
    /// The aggregate's version after it; counts from 1 without gaps.
    pub version: i64,
    /// Such as `souk.order.v1.OrderPlaced`.
    pub event_type: &'static str,
    pub payload: Vec<u8>,
    /// Who caused it, see `Caller::actor`.
    pub actor: String,
    /// The event that caused it, if one did.
    pub causation_id: Option<Uuid>,
    pub occurred_at: OffsetDateTime,
}

pub async fn append(db: &mut PgConnection, event: &Event) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into outbox (event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        event.event_id,
        event.topic,
        event.key,
        event.version,
        event.event_type,
        event.payload,
        event.actor,
        event.causation_id,
        telemetry::traceparent(),
        event.occurred_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Several events of one transaction, appended by one statement. Each belongs to the trace in which it was pushed.
#[derive(Debug, Default)]
pub struct Batch {
    events: Vec<Event>,
    traceparents: Vec<Option<String>>,
}

impl Batch {
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
        self.traceparents.push(telemetry::traceparent());
    }

    /// In the order in which they were pushed.
    pub async fn append(self, db: &mut PgConnection) -> sqlx::Result<()> {
        let events = &self.events;
        sqlx::query!(
            "insert into outbox (event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at)
             select event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at
             from unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[], $7::text[], $8::uuid[],
               $9::text[], $10::timestamptz[]) with ordinality
               as told (event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at, place)
             order by place",
            &column(events, |event| event.event_id),
            &column(events, |event| event.topic) as &[&str],
            &column(events, |event| event.key),
            &column(events, |event| event.version),
            &column(events, |event| event.event_type) as &[&str],
            &column(events, |event| event.payload.as_slice()) as &[&[u8]],
            &column(events, |event| event.actor.as_str()) as &[&str],
            &column(events, |event| event.causation_id) as &[Option<Uuid>],
            &self.traceparents as &[Option<String>],
            &column(events, |event| event.occurred_at),
        )
        .execute(db)
        .await?;
        Ok(())
    }
}

/// The keys of events that the relay has read: the aggregates that changed, whichever replica changed them. Only the process whose
/// relay leads knows them, and a key may come again.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    keys: Arc<Mutex<HashSet<Uuid>>>,
    /// Wakes who takes them.
    pub wake: Wake,
}

/// Keys that wait to be taken. More are dropped.
const MAX_CHANGED: usize = 10_000;

impl Changed {
    pub(crate) fn note(&self, keys: impl Iterator<Item = Uuid>) {
        let mut changed = self.keys.lock().expect("nothing panics while it holds this lock");
        let room = MAX_CHANGED.saturating_sub(changed.len());
        changed.extend(keys.take(room));
        if !changed.is_empty() {
            self.wake.wake();
        }
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<Uuid> {
        self.keys.lock().expect("nothing panics while it holds this lock").drain().collect()
    }
}

/// The outbox of one service, for its relay.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub db: PgPool,
    pub wake: Wake,
    /// Is told which aggregates changed.
    pub changed: Option<Changed>,
}
