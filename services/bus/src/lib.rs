//! The Kafka client: a sender for the outbox relay, and consumers that pass events to a service's handler. Services never
//! call Kafka: they append to the outbox and provide a handler.
//!
//! The events of one key are never reordered. Some may be repeated after a crash; the consumer's inbox drops duplicates.

mod consumer;
mod partition;
mod replay;
mod send;
pub mod topics;
mod wire;

use std::sync::Arc;

use chassis::boot::config::Common;
use chassis::event::relay;
use chassis::{Context, Role};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureProducer;

pub use consumer::consume;
pub use replay::{Replayed, replay, scan};
pub use send::sender;
pub use wire::{Unreadable, parse};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("{topic}: {why}")]
    Topic { topic: String, why: String },
    #[error("the broker did not respond with the topics in time")]
    Slow,
}

/// What the roles of one process share: one producer, and how to reach the brokers.
pub struct Bus {
    producer: FutureProducer,
    consumers: Arc<ClientConfig>,
}

impl Bus {
    pub fn new(config: &Common) -> Result<Self, Error> {
        let mut consumers = consumer_config(&config.kafka.brokers);
        if let Some(instance) = &config.instance {
            consumers.set("group.instance.id", instance);
        }
        Ok(Self { producer: producer(&config.kafka.brokers)?, consumers: Arc::new(consumers) })
    }

    /// Adds what a role needs to publish and to consume.
    pub fn attach(&self, mut role: Role, context: &Context) -> Role {
        if let Some(outbox) = role.outbox.clone() {
            let (service, send) = (role.name, sender(self.producer.clone(), role.name));
            role = role.background("the outbox relay", move |stop| relay::publish(outbox, service, send, stop));
        }
        for consumer in role.consumers.clone() {
            let (config, clock) = (self.consumers.clone(), context.clock.clone());
            role = role.background("a consumer", move |stop| async move {
                consume(&config, consumer, clock, stop).await;
            });
        }
        role
    }
}

/// It waits for all replicas to acknowledge, keeps the order, sends nothing twice by itself, and never times out: while the
/// brokers are away, events wait in the outbox.
pub fn producer(brokers: &str) -> Result<FutureProducer, Error> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "20000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false");
    Ok(config.create()?)
}

/// Each consumer sets its own group. It is the classic protocol with cooperative rebalancing: with the newer one, brokers
/// set the session timeout, which is 45 seconds by default.
pub fn consumer_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
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
        .set("statistics.interval.ms", "5000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false");
    config
}
