//! The topics themselves.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::PgPool;
use uuid::Uuid;

use crate::ground::{Ground, brokers, eventually, metric};

#[sqlx::test(migrations = "../../migrations/order")]
async fn topics_keep_events_for_ever_and_are_made_once(db: PgPool) {
    let ground = Ground::open(db).await;
    let again = bus::topics::create(&brokers(), &[ground.topic], 1, Duration::from_secs(15)).await;
    again.expect("what is there already is left as it is");

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("the settings are right");
    let about = [ResourceSpecifier::Topic(ground.topic)];
    let described = admin.describe_configs(&about, &AdminOptions::new()).await.expect("an answer");
    let settings = described[0].as_ref().expect("the topic is there").entry_map();
    for forever in ["retention.ms", "retention.bytes"] {
        assert_eq!(settings[forever].value.as_deref(), Some("-1"), "{forever}");
    }
    let metadata = admin.inner().fetch_metadata(Some(ground.topic), Duration::from_secs(15)).expect("an answer");
    assert_eq!(metadata.topics()[0].partitions().len(), 12);
}

/// A role may be up before `souk migrate` was run.
#[sqlx::test(migrations = "../../migrations/order")]
async fn a_consumer_may_be_there_before_its_topic(db: PgPool) {
    let mut ground = Ground::open(db).await;
    ground.topic = format!("souk.test.{}", Uuid::now_v7()).leak();
    let listener = ground.scribe();
    let running = listener.start();
    let missed = || metric("consumer_failures_total", listener.consumer.name) > 0.0;
    eventually("that it is missed", async || missed().then_some(())).await;
    bus::topics::create(&brokers(), &[ground.topic], 1, Duration::from_secs(15)).await.expect("a topic");
    ground.say(Uuid::from_u128(1), 1).await;
    ground.hears(1).await;
    running.stop().await;
}
