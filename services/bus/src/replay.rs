//! Reads whole topics, from their beginning to their current end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use uuid::Uuid;

use crate::wire::Unreadable;
use crate::{Brokers, Error, consumer_config, wire};

const PATIENCE: Duration = Duration::from_secs(10);
/// A broker that has just started, or was out of touch with the controller, leads no partition for some seconds.
const LED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One record of a topic.
pub enum Replayed {
    Event { key: Uuid, version: i64 },
    Unreadable { partition: i32, offset: i64, why: Unreadable },
}

/// Calls `each` for every record of a topic, in the order of its partition. Blocks.
pub fn replay(brokers: &Brokers, topic: &str, mut each: impl FnMut(Replayed)) -> Result<(), Error> {
    read(brokers, topic, |message| {
        each(match wire::parse(message) {
            Ok(record) => Replayed::Event { key: record.key, version: record.version },
            Err(why) => Replayed::Unreadable { partition: message.partition(), offset: message.offset(), why },
        })
    })
}

/// Calls `look` for the bytes of every key, value, and header value in a topic. Blocks.
pub fn scan(brokers: &Brokers, topic: &str, mut look: impl FnMut(&[u8])) -> Result<(), Error> {
    read(brokers, topic, |message| {
        let headers =
            message.headers().into_iter().flat_map(|headers| headers.iter()).filter_map(|header| header.value);
        message.key().into_iter().chain(message.payload()).chain(headers).for_each(&mut look);
    })
}

fn read(brokers: &Brokers, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), Error> {
    let mut config = consumer_config(brokers);
    let consumer: BaseConsumer = config
        .set("group.id", "souk-check")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let partitions = metadata.topics().first().map(|topic| topic.partitions().len()).unwrap_or_default();
    let (mut assignment, mut ends) = (TopicPartitionList::new(), HashMap::new());
    for partition in 0..i32::try_from(partitions).unwrap_or_default() {
        let (low, high) = watermarks(&consumer, topic, partition)?;
        if high > low {
            assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
            ends.insert(partition, high);
        }
    }
    consumer.assign(&assignment)?;
    while !ends.is_empty() {
        let message = consumer.poll(PATIENCE).ok_or(Error::Slow)??;
        each(&message);
        let end = ends.get(&message.partition()).copied();
        if end.is_some_and(|end| message.offset() + 1 >= end) {
            ends.remove(&message.partition());
        }
    }
    Ok(())
}

/// The first offset of a partition, and the one after its last.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable,
            )) if begun.elapsed() < LED_WITHIN => std::thread::sleep(LOOK_AGAIN),
            outcome => return Ok(outcome?),
        }
    }
}
