//! The Kafka client: a sender for the outbox relay, and consumers that pass events to a service's handler. Services never
//! call Kafka: they append to the outbox and provide a handler.
//!
//! The events of one key are never reordered. Some may be repeated after a crash; the consumer's inbox drops duplicates.

pub mod access;
mod brokers;
mod consumer;
mod partition;
mod reading;
mod replay;
mod send;
pub mod topics;
mod wire;

use std::path::PathBuf;

use chassis::boot::config::{Common, Kafka};
use chassis::event::relay;
use chassis::{Context, Role};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureProducer;

pub use brokers::{Brokers, Invalid};
pub use consumer::consume;
pub use reading::topic;
pub use replay::{Replayed, replay, scan};
pub use send::sender;
pub use wire::{Unreadable, parse};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{topic}: {why}")]
    Topic { topic: String, why: String },
    #[error("access to topics: {0}")]
    Access(String),
    #[error("the broker did not respond with the topics in time")]
    Slow,
}

/// How the roles of one process reach the brokers, each as itself.
pub struct Bus {
    kafka: Kafka,
    certificates: PathBuf,
    instance: Option<String>,
}

impl Bus {
    pub fn new(config: &Common) -> Self {
        let (kafka, certificates) = (Kafka::clone(&config.kafka), config.tls.directory.clone());
        Self { kafka, certificates, instance: config.instance.clone() }
    }

    /// Adds what a role needs to publish and to consume. The error names the setting.
    pub fn attach(&self, mut role: Role, context: &Context) -> Result<Role, String> {
        if role.outbox.is_none() && role.consumers.is_empty() {
            return Ok(role);
        }
        let brokers =
            Brokers::new(&self.kafka, &self.certificates, role.name).map_err(|invalid| invalid.to_string())?;
        if let Some(outbox) = role.outbox.clone() {
            let producer = producer(&brokers).map_err(|error| format!("SOUK_KAFKA_BROKERS: {error}"))?;
            let (service, send) = (role.name, sender(producer, role.name));
            role = role.background("the outbox relay", move |stop| relay::publish(outbox, service, send, stop));
        }
        for (topic, slot) in &role.topics {
            slot.fill(reading::topic(&brokers, role.name, topic));
        }
        let mut config = consumer_config(&brokers);
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        for consumer in role.consumers.clone() {
            let (config, clock) = (config.clone(), context.clock.clone());
            role = role.background("a consumer", move |stop| async move {
                consume(&config, consumer, clock, stop).await;
            });
        }
        Ok(role)
    }
}

/// It waits for all replicas to acknowledge, keeps the order, sends nothing twice by itself, and never times out: while the
/// brokers are away, events wait in the outbox.
pub fn producer(brokers: &Brokers) -> Result<FutureProducer, Error> {
    let mut config = brokers.config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "20000");
    Ok(config.create()?)
}

/// Each consumer sets its own group. It is the classic protocol with cooperative rebalancing: with the newer one, brokers
/// set the session timeout, which is 45 seconds by default.
pub fn consumer_config(brokers: &Brokers) -> ClientConfig {
    let mut config = brokers.config();
    config
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", "8192")
        // Topics may be created after a consumer started.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", "5000");
    config
}
