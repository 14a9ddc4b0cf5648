//! Writes the events of the orders into the topics.

use std::time::Duration;

use anyhow::Result;
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event;
use contracts::souk::order::v1::order_event;
use contracts::souk::payment::v1::payment_event;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use uuid::Uuid;

use super::story::{Event, Order, Story};
use crate::topics::administrator;
use stack::layout::Layout;

const WITHIN: Duration = Duration::from_secs(120);

pub(super) fn write(layout: &Layout, story: &Story) -> Result<()> {
    // The queue bounds how many are in memory.
    let mut config = administrator(layout);
    config.set("enable.idempotence", "true").set("linger.ms", "20");
    let producer: BaseProducer = config.create()?;
    for order in story.orders() {
        publish(&producer, order_event::Event::TOPIC, order.order_id(), order, &story.order_events)?;
        publish(&producer, inventory_event::Event::TOPIC, order.order_id(), order, &story.inventory_events)?;
        publish(&producer, payment_event::Event::TOPIC, order.payment_id(), order, &story.payment_events)?;
    }
    Ok(producer.flush(WITHIN)?)
}

fn publish(producer: &BaseProducer, topic: &str, key: Uuid, order: Order, events: &[Event]) -> Result<()> {
    let (name, mut key_bytes) = (key.to_string(), Uuid::encode_buffer());
    let key_text = &*key.hyphenated().encode_lower(&mut key_bytes);
    for (event, version) in events.iter().zip(1..).filter(|(event, _)| order.is_cancelled() || !event.of_cancelled) {
        let payload = event.payload.fill(order);
        let mut record = BaseRecord::to(topic).key(key_text).payload(&payload).headers(headers(event, &name, version));
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(100));
            record = refused;
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

fn headers(event: &Event, key: &str, version: u64) -> OwnedHeaders {
    let (event_id, version) = (Uuid::now_v7().to_string(), version.to_string());
    let all = [
        ("ce_specversion", "1.0"),
        ("ce_id", &event_id),
        ("ce_type", event.event_type),
        ("ce_source", "/souk/bench"),
        ("ce_time", "2026-01-01T00:00:00Z"),
        ("ce_subject", key),
        ("ce_sequence", &version),
        ("content-type", "application/protobuf"),
        ("ce_actor", "service:bench"),
    ];
    let empty = OwnedHeaders::new_with_capacity(all.len());
    all.into_iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value) }))
}
