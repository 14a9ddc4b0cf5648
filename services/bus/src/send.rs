//! Sends the events of one service.

use std::sync::Arc;

use chassis::event::Record;
use chassis::event::relay::{Acknowledgement, SendError, Sender};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::wire;

/// `service` is the `ce_source` of its events.
pub fn sender(producer: FutureProducer, service: &'static str) -> Sender {
    Arc::new(move |record| send(&producer, service, record))
}

fn send(producer: &FutureProducer, service: &str, record: &Record) -> Acknowledgement {
    let key = record.key.to_string();
    let message = FutureRecord::to(&record.topic).key(&key).payload(&record.payload);
    let queued = producer.send_result(message.headers(wire::headers(record, service))).map_err(|(error, _)| error);
    let producer = producer.clone();
    Box::pin(async move {
        let delivery = queued.map_err(|error| explain(&producer, &error))?;
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(explain(&producer, &error)),
            Err(_) => Err(SendError::Refused("the producer dropped it".to_owned())),
        }
    })
}

fn explain(producer: &FutureProducer, error: &KafkaError) -> SendError {
    match (producer.client().fatal_error(), error) {
        (Some((_, why)), _) => SendError::Fatal(why),
        (None, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => SendError::QueueFull,
        (None, error) => SendError::Refused(error.to_string()),
    }
}
