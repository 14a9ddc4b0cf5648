//! Reads a topic again from its beginning, for a service that rebuilds what it made of its events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::Unexpected;
use chassis::event::{Progress, Reading, Record, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::{Brokers, Error, consumer_config, wire};

/// How long the brokers may take to say where the topic ends, and a read to return.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many records a read returns at most.
const MOST: usize = 500;

/// One topic, as this role may read it.
pub fn topic(brokers: &Brokers, role: &'static str, topic: &'static str) -> Arc<dyn Topic> {
    let mut config = consumer_config(brokers);
    // It never joins the group of this name: its partitions are assigned, and no offset is stored.
    config.set("group.id", role).set("enable.auto.commit", "false").set("statistics.interval.ms", "0");
    Arc::new(Kafka { config, topic })
}

struct Kafka {
    config: ClientConfig,
    topic: &'static str,
}

#[tonic::async_trait]
impl Topic for Kafka {
    async fn open(&self) -> Result<Box<dyn Reading>, Unexpected> {
        let (config, topic) = (self.config.clone(), self.topic);
        let consumer = blocking(move || config.create::<BaseConsumer>().map_err(Error::from)).await?;
        let state = State { consumer, topic, partitions: BTreeMap::new() };
        let mut reading = FromKafka(Arc::new(Mutex::new(state)));
        reading.look_for_end().await?;
        Ok(Box::new(reading))
    }
}

struct FromKafka(Arc<Mutex<State>>);

struct State {
    consumer: BaseConsumer,
    topic: &'static str,
    partitions: BTreeMap<i32, Span>,
}

/// What of a partition is read: everything up to `next`, of what is between `first` and `end`.
struct Span {
    first: i64,
    next: i64,
    end: i64,
}

#[tonic::async_trait]
impl Reading for FromKafka {
    async fn look_for_end(&mut self) -> Result<(), Unexpected> {
        self.with(State::look_for_end).await
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unexpected> {
        self.with(State::next).await
    }

    fn progress(&self) -> Progress {
        let state = self.state();
        let sum = |of: fn(&Span) -> i64| state.partitions.values().map(of).sum();
        Progress { read: sum(|span| span.next - span.first), total: sum(|span| span.end - span.first) }
    }
}

impl FromKafka {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// The client blocks.
    async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Unexpected> {
        let state = self.0.clone();
        blocking(move || call(&mut state.lock().expect("nothing panics while it holds this lock"))).await
    }
}

impl State {
    fn look_for_end(&mut self) -> Result<(), Error> {
        let metadata = self.consumer.fetch_metadata(Some(self.topic), PATIENCE)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let before = self.partitions.len();
        for partition in 0..i32::try_from(count).unwrap_or_default() {
            let (low, high) = self.consumer.fetch_watermarks(self.topic, partition, PATIENCE)?;
            let span = self.partitions.entry(partition).or_insert(Span { first: low, next: low, end: high });
            span.end = span.end.max(high);
        }
        if self.partitions.len() > before {
            let mut assignment = TopicPartitionList::new();
            for (partition, span) in &self.partitions {
                assignment.add_partition_offset(self.topic, *partition, Offset::Offset(span.next))?;
            }
            self.consumer.assign(&assignment)?;
        }
        Ok(())
    }

    /// Records behind the end that was looked for are returned, too, if they come first.
    fn next(&mut self) -> Result<Vec<Record>, Error> {
        let (begun, mut records) = (Instant::now(), Vec::new());
        while records.len() < MOST && self.partitions.values().any(|span| span.next < span.end) {
            let patience = PATIENCE.saturating_sub(begun.elapsed());
            let Some(message) = self.consumer.poll(patience) else {
                // What was read is returned first; then nothing comes, which is an error.
                return if records.is_empty() { Err(Error::Slow) } else { Ok(records) };
            };
            let message = match message {
                Ok(message) => message,
                Err(error) if records.is_empty() => return Err(error.into()),
                Err(_) => return Ok(records),
            };
            if let Some(span) = self.partitions.get_mut(&message.partition()) {
                span.next = message.offset() + 1;
                span.end = span.end.max(span.next);
            }
            // What is no event became a dead letter of the consumer.
            if let Ok(record) = wire::parse(&message) {
                records.push(record);
            }
        }
        Ok(records)
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Unexpected> {
    let called = tokio::task::spawn_blocking(call).await;
    let called = called.map_err(|error| Unexpected::Broken(format!("reading a topic ended early: {error}")))?;
    called.map_err(|error| Unexpected::Peer { peer: "Kafka", source: error.into() })
}
