//! Tests against real Kafka and Postgres. Each has its own database, topics and consumer groups.

mod consumer;
mod harness;
mod reading;
mod relay;
mod topics;
