//! Creation and settings of topics.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Harness, address, brokers, consumer_metric, eventually};

#[sqlx::test(migrations = "../../migrations/order")]
async fn topics_keep_events_for_ever_and_are_created_once(db: PgPool) {
    let harness = Harness::new(db).await;
    let again = bus::topics::create(&brokers(), &[harness.topic], 1, Duration::from_secs(15)).await;
    again.expect("an existing topic is left as it is");

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address()).create().expect("the settings are right");
    let about = [ResourceSpecifier::Topic(harness.topic)];
    let described = admin.describe_configs(&about, &AdminOptions::new()).await.expect("a response");
    let settings = described[0].as_ref().expect("the topic is there").entry_map();
    for forever in ["retention.ms", "retention.bytes"] {
        assert_eq!(settings[forever].value.as_deref(), Some("-1"), "{forever}");
    }
    let metadata = admin.inner().fetch_metadata(Some(harness.topic), Duration::from_secs(15)).expect("a response");
    assert_eq!(metadata.topics()[0].partitions().len(), 12);
}

/// A role may be up before `souk migrate` was run.
#[sqlx::test(migrations = "../../migrations/order")]
async fn a_consumer_may_start_before_its_topic_is_created(db: PgPool) {
    let mut harness = Harness::new(db).await;
    harness.topic = format!("souk.test.{}", Uuid::now_v7()).leak();
    let test = harness.consumer();
    let running = test.start();
    let failed = || consumer_metric("consumer_failures_total", test.consumer.name) > 0.0;
    eventually("a failure to read", async || failed().then_some(())).await;
    bus::topics::create(&brokers(), &[harness.topic], 1, Duration::from_secs(15)).await.expect("a topic");
    harness.send(Uuid::from_u128(1), 1).await;
    harness.wait_for_handled(1).await;
    running.stop().await;
}
