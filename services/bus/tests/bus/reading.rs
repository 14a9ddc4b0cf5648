//! Reading a topic again from its beginning.

use std::collections::HashMap;

use chassis::event::{Progress, Reading, Record};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Harness, brokers};

const EVENTS: i64 = 1_200;

/// Reads up to the end that was looked for, and returns the records, and how often it read.
async fn read_all(reading: &mut Box<dyn Reading>) -> (Vec<Record>, usize) {
    let (mut all, mut reads) = (Vec::new(), 0);
    loop {
        let records = reading.next().await.expect("the broker is there");
        if records.is_empty() {
            return (all, reads);
        }
        reads += 1;
        all.extend(records);
    }
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_topic_is_read_from_its_beginning_to_the_end_that_was_looked_for(db: PgPool) {
    let harness = Harness::new(db).await;
    let keys: Vec<_> = (0..40).map(|_| Uuid::now_v7()).collect();
    for number in 0..EVENTS {
        harness.send(keys[number as usize % keys.len()], number / keys.len() as i64 + 1).await;
    }
    harness.send_unreadable(keys[0]).await;

    let topic = bus::topic(&brokers(), "reader", harness.topic);
    let mut reading = topic.open().await.expect("the broker is there");
    assert_eq!(reading.progress(), Progress { read: 0, total: EVENTS + 1 });
    let (records, reads) = read_all(&mut reading).await;
    assert_eq!(records.len() as i64, EVENTS, "what is no event is left out");
    assert!(reads >= 3, "a read is bounded: {reads}");
    let mut versions = HashMap::new();
    for record in &records {
        let version = versions.entry(record.key).or_insert(0);
        assert_eq!(record.version, *version + 1, "in their order");
        *version = record.version;
    }
    assert_eq!(reading.progress(), Progress { read: EVENTS + 1, total: EVENTS + 1 });

    let next = EVENTS / keys.len() as i64 + 1;
    harness.send(keys[0], next).await;
    assert!(reading.next().await.expect("the broker is there").is_empty(), "behind the end that was looked for");
    reading.look_for_end().await.expect("the broker is there");
    let (records, _) = read_all(&mut reading).await;
    assert_eq!(records.iter().map(|record| (record.key, record.version)).collect::<Vec<_>>(), [(keys[0], next)]);

    // Another reading begins at the beginning.
    let mut again = topic.open().await.expect("the broker is there");
    assert_eq!(read_all(&mut again).await.0.len() as i64, EVENTS + 1);
}
