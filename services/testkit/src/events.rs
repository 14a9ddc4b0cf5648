//! Events between services, without Kafka: what the outbox holds, and what is delivered to a consumer.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use chassis::Clock;
use chassis::event::{Consumer, Record, dead_letter, inbox};
use sqlx::{PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Kit;

impl Kit {
    /// The consumer of the service that is served.
    pub fn consumer(&self) -> &Consumer {
        self.consumer.as_ref().expect("the role that is served consumes events")
    }

    /// Delivers an event twice, as Kafka may.
    pub async fn deliver(&self, record: Record) {
        self.deliver_together(std::slice::from_ref(&record)).await;
        self.deliver_together(&[record]).await;
    }

    /// Delivers events once, as one set.
    pub async fn deliver_together(&self, records: &[Record]) {
        deliver(self.consumer(), &self.context.clock, records).await;
    }

    /// The types of the events that the outbox holds of this key, without their packages. Their versions have no gaps.
    pub async fn published(&self, key: Uuid) -> Vec<String> {
        let records = published(&self.consumer().db).await.into_iter().filter(|record| record.key == key);
        let types = records.enumerate().map(|(at, record)| {
            assert_eq!(record.version, at as i64 + 1, "versions have no gaps");
            record.event_type.rsplit('.').next().unwrap_or_default().to_owned()
        });
        types.collect()
    }

    /// How many events are dead letters.
    pub async fn parked(&self) -> usize {
        dead_letter::list(&self.consumer().db, None, 0, 100).await.expect("dead letters can be read").len()
    }
}

/// Hands records to a consumer, as the bus would.
pub async fn deliver(consumer: &Consumer, clock: &Clock, records: &[Record]) {
    inbox::consume(consumer, clock, records).await.expect("the database is there");
}

/// All records of the outbox, in the order of its ids.
pub async fn published(db: &PgPool) -> Vec<Record> {
    let rows = sqlx::query(
        "select id, event_id, topic, key, version, type, payload, actor, causation_id, created_at from outbox order by id",
    );
    let rows = rows.fetch_all(db).await.expect("the outbox can be read");
    let records = rows.iter().map(|row| Record {
        topic: row.get("topic"),
        partition: 0,
        offset: row.get("id"),
        key: row.get("key"),
        version: row.get("version"),
        event_id: row.get("event_id"),
        event_type: row.get("type"),
        payload: row.get("payload"),
        actor: row.get("actor"),
        causation_id: row.get("causation_id"),
        occurred_at: row.get("created_at"),
        traceparent: None,
    });
    let records: Vec<_> = records.collect();
    if std::env::var_os("SOUK_RECORD_SAMPLES").is_some() {
        keep_samples(&records);
    }
    records
}

/// The first published event of each type that a test sees becomes its sample. A sample is never written again: whatever was
/// published once must be readable for ever.
fn keep_samples(records: &[Record]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/samples");
    for record in records {
        let path = format!("{folder}/{}.binpb", record.event_type);
        match std::fs::File::create_new(&path) {
            Ok(mut file) => file.write_all(&record.payload).expect("the sample can be written"),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// An event of another service, as it would arrive.
pub fn record(event_type: &str, key: Uuid, version: i64, payload: Vec<u8>) -> Record {
    let topic = event_type.rsplit_once('.').map_or(event_type, |(topic, _)| topic).to_owned();
    Record {
        topic,
        partition: 0,
        offset: version,
        key,
        version,
        event_id: Uuid::from_u128(key.as_u128() ^ u128::from(version.unsigned_abs())),
        event_type: event_type.to_owned(),
        payload,
        actor: "service:test".to_owned(),
        causation_id: None,
        occurred_at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
        traceparent: None,
    }
}
