//! Reads the events of one consumer's topics and hands them to its partitions, which work at the same time.
//!
//! Nothing is paused at the broker client: a pause that meets a change of the assignment can last for ever there
//! (librdkafka 5591). A partition that stands still holds the others up only when very much waits for it; if for minutes,
//! the client leaves the group by itself, others take over, and it comes back when it reads on.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use chassis::Clock;
use chassis::boot::metrics::{self, Of};
use chassis::event::{Consumer, Record};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, ClientContext, Message};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::partition::{Item, Partition, What};
use crate::wire;

const BEFORE_JOINING_AGAIN: Duration = Duration::from_secs(1);
const LEAVING: Duration = Duration::from_secs(5);
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

static FAILURES: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("consumer_failures", "Failures to read from the broker", Family::default()));
static LAG: LazyLock<Family<Of, Gauge>> = LazyLock::new(|| {
    metrics::register("consumer_lag", "Events of this process's partitions that had no effect yet", Family::default())
});

/// The partitions that are ours, by topic and number.
type Partitions = HashMap<String, HashMap<i32, Arc<Partition>>>;

/// What librdkafka tells about one consumer.
struct Watch {
    consumer: &'static str,
    partitions: Mutex<Partitions>,
}

impl Watch {
    fn partitions(&self) -> std::sync::MutexGuard<'_, Partitions> {
        self.partitions.lock().expect("nothing panics while it holds this lock")
    }
}

impl ClientContext for Watch {
    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // What is not ours has a lag of -1.
        let lag = partitions.map(|partition| partition.consumer_lag_stored.max(0)).sum();
        LAG.get_or_create(&Of::new(self.consumer)).set(lag);
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        let mut partitions = self.partitions();
        for it in revoked.elements() {
            let given_up = partitions.get_mut(it.topic()).and_then(|topic| topic.remove(&it.partition()));
            if let Some(partition) = given_up {
                partition.give_up();
            }
        }
        tracing::info!(consumer = self.consumer, count = revoked.count(), "partitions were given up");
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            tracing::info!(consumer = self.consumer, count = assigned.count(), "partitions were assigned");
        }
    }
}

type Source = StreamConsumer<Watch>;

/// Consumes until told to stop. What was begun is finished, and its offsets are committed, before it returns.
pub async fn consume(config: &ClientConfig, consumer: Consumer, clock: Clock, stop: CancellationToken) {
    let mut config = config.clone();
    config.set("group.id", consumer.name).set("client.id", consumer.name);
    while !stop.is_cancelled() {
        let watch = Watch { consumer: consumer.name, partitions: Mutex::default() };
        let source: Arc<Source> = match config.create_with_context(watch) {
            Ok(source) => Arc::new(source),
            Err(error) => return tracing::error!(consumer = consumer.name, %error, "the consumer's settings are wrong"),
        };
        if let Err(error) = source.subscribe(consumer.topics) {
            return tracing::error!(consumer = consumer.name, %error, "the topics cannot be subscribed to");
        }
        take_part(source, &consumer, &clock, stop.child_token()).await;
        tokio::select! {
            () = tokio::time::sleep(BEFORE_JOINING_AGAIN) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// As one member of the group, until told to stop or until this member cannot go on.
async fn take_part(source: Arc<Source>, consumer: &Consumer, clock: &Clock, stop: CancellationToken) {
    let (mut jobs, mut last_complaint) = (JoinSet::new(), None::<Instant>);
    while !stop.is_cancelled() {
        let message = tokio::select! {
            message = source.recv() => message,
            () = stop.cancelled() => break,
        };
        match message {
            Ok(message) => {
                let item = read(&message, consumer, clock);
                let partition = find(&source, &message).unwrap_or_else(|| {
                    let (topic, number) = (message.topic(), message.partition());
                    let (partition, job) =
                        Partition::open(topic, number, consumer.clone(), clock.clone(), stop.clone());
                    jobs.spawn(job.run(source.clone()));
                    let mut partitions = source.context().partitions();
                    partitions.entry(topic.to_owned()).or_default().insert(number, partition.clone());
                    partition
                });
                partition.push(item).await;
            }
            Err(error) => {
                FAILURES.get_or_create(&Of::new(consumer.name)).inc();
                // While brokers are away this comes many times a second.
                if last_complaint.is_none_or(|at| at.elapsed() >= BETWEEN_COMPLAINTS) {
                    last_complaint = Some(Instant::now());
                    tracing::warn!(consumer = consumer.name, %error, "nothing can be read right now");
                }
                if let Some((_, why)) = source.client().fatal_error() {
                    // Such as a second process under the same instance name, or a broker that came back and believes in one.
                    tracing::error!(
                        consumer = consumer.name,
                        why,
                        "this member of the group cannot go on; it joins anew"
                    );
                    stop.cancel();
                }
            }
        }
        while let Some(ended) = jobs.try_join_next() {
            if let Err(error) = ended {
                // Its partition would stand still and nobody would know.
                tracing::error!(consumer = consumer.name, %error, "the work on a partition died; it begins anew");
                stop.cancel();
            }
        }
    }
    while jobs.join_next().await.is_some() {}
    // Commits what is stored and leaves the group, which takes a while, and for ever if no broker answers a member that
    // was shut out.
    let leaving = tokio::task::spawn_blocking(move || drop(source));
    if !matches!(tokio::time::timeout(LEAVING, leaving).await, Ok(Ok(()))) {
        tracing::warn!(consumer = consumer.name, "the last offsets may not be committed; their events are read again");
    }
}

fn find(source: &Source, message: &BorrowedMessage<'_>) -> Option<Arc<Partition>> {
    source.context().partitions().get(message.topic())?.get(&message.partition()).cloned()
}

/// An event that nobody here wants never touches the database.
fn read(message: &BorrowedMessage<'_>, consumer: &Consumer, clock: &Clock) -> Item {
    let what = match wire::event_type(message) {
        Some(event_type) if !consumer.handler.wants(event_type) => What::Unwanted,
        Some(_) => match wire::parse(message) {
            Ok(record) => What::Event(record),
            Err(why) => What::Unreadable(raw(message, clock), why),
        },
        None => What::Unreadable(raw(message, clock), wire::Unreadable("ce_type")),
    };
    Item { offset: message.offset(), what }
}

/// A record that is no event of ours, as far as it can be told.
fn raw(message: &BorrowedMessage<'_>, clock: &Clock) -> Record {
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: Uuid::nil(),
        version: 0,
        event_id: Uuid::nil(),
        event_type: "unreadable".to_owned(),
        payload: message.payload().unwrap_or_default().to_vec(),
        actor: "unknown".to_owned(),
        causation_id: None,
        occurred_at: clock.now(),
        traceparent: None,
    }
}
