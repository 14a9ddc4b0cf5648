//! The bus against the real Kafka and the real Postgres. Each test has a database, topics and groups of its own.

mod consumer;
mod ground;
mod relay;
mod topics;
