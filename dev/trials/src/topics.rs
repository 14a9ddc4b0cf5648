//! What tests and faults do to the topics of a broker, and to the groups that read them.

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
use tokio_util::sync::CancellationToken;

/// What events are written to.
const PREFIX: &str = "souk.";
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// The header of a record that is written again.
const AGAIN: &str = "souk-again";
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("log.connection.close", "false");
    config
}

/// Makes the broker forget the offsets of consumer groups, which must have no members any more.
pub async fn forget_groups(brokers: &str, groups: &[&str]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create()?;
    let is_gone = |code: RDKafkaErrorCode| code == RDKafkaErrorCode::GroupIdNotFound;
    let begun = Instant::now();
    loop {
        let forgotten = admin.delete_groups(groups, &AdminOptions::new()).await?;
        if forgotten.iter().all(|outcome| outcome.as_ref().map_or_else(|(_, code)| is_gone(*code), |_| true)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < FORGOTTEN_WITHIN, "not forgotten: {forgotten:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Writes each event that comes twice more, until told to stop.
pub async fn repeat_events(brokers: &str, stop: CancellationToken) -> Result<()> {
    let consumer: StreamConsumer =
        config(brokers).set("group.id", "souk-again").set("enable.auto.commit", "false").create()?;
    let mut ends = TopicPartitionList::new();
    let all = consumer.fetch_metadata(None, TOLD_WITHIN)?;
    for topic in all.topics().iter().filter(|topic| topic.name().starts_with(PREFIX)) {
        for partition in topic.partitions() {
            ends.add_partition_offset(topic.name(), partition.id(), Offset::End)?;
        }
    }
    consumer.assign(&ends)?;
    let producer: FutureProducer = config(brokers).set("acks", "all").set("linger.ms", "0").create()?;
    let mut written = Vec::new();
    loop {
        let message = tokio::select! {
            message = consumer.recv() => message?,
            () = stop.cancelled() => break,
        };
        let headers = message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach());
        if headers.iter().any(|header| header.key == AGAIN) {
            continue;
        }
        let headers = headers.insert(Header { key: AGAIN, value: Some("1") });
        for _ in 0..2 {
            let again = FutureRecord::to(message.topic()).partition(message.partition()).headers(headers.clone());
            let again = again.key(message.key().unwrap_or_default()).payload(message.payload().unwrap_or_default());
            written.push(producer.send_result(again).map_err(|(error, _)| error)?);
        }
    }
    ensure!(!written.is_empty(), "no event came");
    for outcome in join_all(written).await {
        outcome?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
