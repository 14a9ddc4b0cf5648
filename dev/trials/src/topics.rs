//! Changes topics and consumer groups, for tests and faults.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use stack::kafka;
use stack::layout::Layout;
use tokio_util::sync::CancellationToken;

/// The prefix of topics with events.
const PREFIX: &str = "souk.";
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// The header of a duplicate record.
const DUPLICATE: &str = "souk-duplicate";
const DELETED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Of a client that may do everything.
pub fn administrator(layout: &Layout) -> ClientConfig {
    kafka::administrator(layout).collect()
}

/// Deletes consumer groups and their offsets. They must have no members any more.
pub async fn delete_groups(layout: &Layout, groups: &[&str]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = administrator(layout).create()?;
    let is_gone = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::GroupIdNotFound;
    let begun = Instant::now();
    loop {
        let deleted = admin.delete_groups(groups, &AdminOptions::new()).await?;
        if deleted.iter().all(|outcome| outcome.as_ref().map_or_else(|(_, code)| is_gone(*code), |_| true)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < DELETED_WITHIN, "the groups were not deleted: {deleted:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Writes each new event twice more, until `stop` is cancelled.
pub async fn repeat_events(layout: &Layout, stop: CancellationToken) -> Result<()> {
    let consumer: StreamConsumer =
        administrator(layout).set("group.id", "souk-duplicate").set("enable.auto.commit", "false").create()?;
    let mut ends = TopicPartitionList::new();
    let all = consumer.fetch_metadata(None, METADATA_TIMEOUT)?;
    for topic in all.topics().iter().filter(|topic| topic.name().starts_with(PREFIX)) {
        for partition in topic.partitions() {
            ends.add_partition_offset(topic.name(), partition.id(), Offset::End)?;
        }
    }
    consumer.assign(&ends)?;
    let producer: FutureProducer = administrator(layout).set("acks", "all").set("linger.ms", "0").create()?;
    let mut written = Vec::new();
    loop {
        let message = tokio::select! {
            message = consumer.recv() => message?,
            () = stop.cancelled() => break,
        };
        let headers = message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach());
        if headers.iter().any(|header| header.key == DUPLICATE) {
            continue;
        }
        let headers = headers.insert(Header { key: DUPLICATE, value: Some("1") });
        for _ in 0..2 {
            let again = FutureRecord::to(message.topic()).partition(message.partition()).headers(headers.clone());
            let again = again.key(message.key().unwrap_or_default()).payload(message.payload().unwrap_or_default());
            written.push(producer.send_result(again).map_err(|(error, _)| error)?);
        }
    }
    ensure!(!written.is_empty(), "there was no event");
    for outcome in join_all(written).await {
        outcome?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
