//! The topics, created by `souk migrate`. Events are kept for ever, so projections can be rebuilt from them.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::{Brokers, Error};

const PARTITIONS: i32 = 12;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Creates the missing ones, and waits until each partition of all has a leader.
pub async fn create(brokers: &Brokers, topics: &[&str], replication: i32, patience: Duration) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> = brokers.config().create()?;
    let in_sync = if replication >= 3 { "2" } else { "1" };
    let wanted: Vec<_> = topics
        .iter()
        .map(|topic| {
            NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(replication))
                .set("retention.ms", "-1")
                .set("retention.bytes", "-1")
                .set("min.insync.replicas", in_sync)
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(patience)).request_timeout(Some(patience));
    for outcome in admin.create_topics(&wanted, &options).await? {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::Topic { topic, why: code.to_string() }),
        }
    }
    // Creation is asynchronous.
    let begun = Instant::now();
    while begun.elapsed() < patience {
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(5))?;
        let shown = |topic: &&str| {
            metadata.topics().iter().any(|it| {
                let led = it.partitions().iter().filter(|partition| partition.leader() >= 0).count();
                it.name() == *topic && led >= PARTITIONS.unsigned_abs() as usize
            })
        };
        if topics.iter().all(shown) {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Err(Error::Slow)
}
