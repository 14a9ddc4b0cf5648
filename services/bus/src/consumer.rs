//! Reads the topics of one consumer and passes the events to one worker for each partition. The workers run concurrently.
//!
//! Partitions are never paused in the client: a pause during a rebalance can last for ever (librdkafka 5591). A partition
//! whose worker is stuck blocks the others only when its queue is full. If that lasts for minutes, the client leaves the
//! group, other members take over, and it joins again when it can read on.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use chassis::boot::metrics::{self, ByConsumer};
use chassis::event::{Consumer, Handler, PartitionLag, Record};
use chassis::{Backoff, Clock};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::{ConsumerGroup, Statistics};
use rdkafka::{ClientConfig, ClientContext, Message};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::partition::{Content, Item, Partition};
use crate::wire;

/// The broker responds at once to a consumer that gathers, when it has so much for it.
const GATHERED_BYTES: usize = 65_536;
const REJOIN_DELAY: Duration = Duration::from_secs(1);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How often a member looks at itself, and how long it may wait for partitions while brokers respond. A rebalance takes no longer
/// than the session timeout, unless another member is stuck.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const ASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(60);

static FAILURES: LazyLock<Family<ByConsumer, Counter>> =
    LazyLock::new(|| metrics::register("consumer_failures", "Failures to read from the broker", Family::default()));
static LAG: LazyLock<Family<ByConsumer, Gauge>> = LazyLock::new(|| {
    metrics::register(
        "consumer_lag",
        "Events that this process has not handled yet, in the partitions assigned to it",
        Family::default(),
    )
});

/// The partitions that are assigned to this process, by topic and number.
type Partitions = HashMap<String, HashMap<i32, Arc<Partition>>>;

/// Receives librdkafka's statistics and rebalances for one consumer.
struct Watch {
    consumer: &'static str,
    handler: Arc<dyn Handler>,
    partitions: Mutex<Partitions>,
    waiting: Mutex<Waiting>,
}

/// Whether a member waits for partitions. One that was never given any may be more than there are partitions.
#[derive(Debug, Default)]
struct Waiting {
    had_partitions: bool,
    since: Option<Instant>,
    /// librdkafka's name of what it does to join.
    join_state: String,
}

impl Waiting {
    fn observe(&mut self, group: &ConsumerGroup, now: Instant) {
        self.had_partitions |= group.assignment_size > 0;
        self.join_state.clone_from(&group.join_state);
        let is_joining = group.join_state != "steady";
        if group.state == "up" && group.assignment_size == 0 && (is_joining || self.had_partitions) {
            self.since.get_or_insert(now);
        } else {
            self.since = None;
        }
    }

    fn is_stuck(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= ASSIGNMENT_TIMEOUT)
    }
}

impl Watch {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds this lock")
    }

    fn partitions(&self) -> std::sync::MutexGuard<'_, Partitions> {
        self.partitions.lock().expect("nothing panics while it holds this lock")
    }
}

impl ClientContext for Watch {
    fn stats(&self, statistics: Statistics) {
        let mut lag = 0;
        for topic in statistics.topics.values() {
            // A partition that is not assigned to us has a lag of -1.
            let ours = topic.partitions.values().filter(|partition| partition.consumer_lag_stored >= 0);
            let ours = ours.map(|it| PartitionLag { partition: it.partition, waiting: it.consumer_lag_stored });
            let ours: Vec<_> = ours.collect();
            lag += ours.iter().map(|partition| partition.waiting).sum::<i64>();
            self.handler.observe_lag(&ours);
        }
        LAG.get_or_create(&ByConsumer::new(self.consumer)).set(lag);
        if let Some(group) = &statistics.cgrp {
            self.waiting().observe(group, Instant::now());
        }
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        let mut partitions = self.partitions();
        for it in revoked.elements() {
            let ours = partitions.get_mut(it.topic()).and_then(|topic| topic.remove(&it.partition()));
            if let Some(partition) = ours {
                partition.revoke();
            }
        }
        tracing::info!(consumer = self.consumer, count = revoked.count(), "partitions were revoked");
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            tracing::info!(consumer = self.consumer, count = assigned.count(), "partitions were assigned");
        }
    }
}

type Source = StreamConsumer<Watch>;

/// Consumes until `stop` is cancelled. Before it returns, started work is finished and its offsets are committed.
pub async fn consume(config: &ClientConfig, consumer: Consumer, clock: Clock, stop: CancellationToken) {
    let mut config = config.clone();
    config.set("group.id", consumer.name).set("client.id", consumer.name);
    let gathers_for = consumer.handler.gathers_for();
    if !gathers_for.is_zero() {
        config
            .set("fetch.min.bytes", GATHERED_BYTES.to_string())
            .set("fetch.wait.max.ms", gathers_for.as_millis().to_string());
    }
    let rejoin = Backoff::new(REJOIN_DELAY, REJOIN_DELAY * 4);
    while !stop.is_cancelled() {
        let handler = consumer.handler.clone();
        let watch = Watch { consumer: consumer.name, handler, partitions: Mutex::default(), waiting: Mutex::default() };
        let source: Arc<Source> = match config.create_with_context(watch) {
            Ok(source) => Arc::new(source),
            Err(error) => return tracing::error!(consumer = consumer.name, %error, "the consumer's settings are wrong"),
        };
        if let Err(error) = source.subscribe(consumer.topics) {
            return tracing::error!(consumer = consumer.name, %error, "the topics cannot be subscribed to");
        }
        run_member(source, &consumer, &clock, stop.child_token()).await;
        tokio::select! {
            () = tokio::time::sleep(rejoin.after(1)) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// One membership in the group: ends when `stop` is cancelled, or when this member cannot continue.
async fn run_member(source: Arc<Source>, consumer: &Consumer, clock: &Clock, stop: CancellationToken) {
    let (mut workers, mut last_warning) = (JoinSet::new(), None::<Instant>);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    while !stop.is_cancelled() {
        let message = tokio::select! {
            message = source.recv() => message,
            () = stop.cancelled() => break,
            // It polls the client, too, from which statistics come.
            _ = look.tick() => {
                let waiting = source.context().waiting();
                if waiting.is_stuck(Instant::now()) {
                    FAILURES.get_or_create(&ByConsumer::new(consumer.name)).inc();
                    let state = &waiting.join_state;
                    tracing::error!(consumer = consumer.name, state, "the consumer is given no partitions; it joins again");
                    stop.cancel();
                }
                continue;
            }
        };
        match message {
            Ok(message) => {
                let item = read(&message, consumer, clock);
                let partition = find(&source, &message).unwrap_or_else(|| {
                    let (topic, number) = (message.topic(), message.partition());
                    let (partition, worker) =
                        Partition::open(topic, number, consumer.clone(), clock.clone(), stop.clone());
                    workers.spawn(worker.run(source.clone()));
                    let mut partitions = source.context().partitions();
                    partitions.entry(topic.to_owned()).or_default().insert(number, partition.clone());
                    partition
                });
                partition.push(item).await;
            }
            Err(error) => {
                FAILURES.get_or_create(&ByConsumer::new(consumer.name)).inc();
                // While brokers are away this happens many times a second.
                if last_warning.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                    last_warning = Some(Instant::now());
                    tracing::warn!(consumer = consumer.name, %error, "the consumer cannot read from the broker");
                }
                if let Some((_, why)) = source.client().fatal_error() {
                    // Such as a second process with the same instance name, or a restarted broker that assumes one.
                    tracing::error!(consumer = consumer.name, why, "the consumer leaves its group and joins again");
                    stop.cancel();
                }
            }
        }
        while let Some(ended) = workers.try_join_next() {
            if let Err(error) = ended {
                // Without a new membership its partition would not be read any more.
                tracing::error!(consumer = consumer.name, %error, "the worker of a partition panicked; the consumer joins again");
                stop.cancel();
            }
        }
    }
    while workers.join_next().await.is_some() {}
    // Dropping it commits the stored offsets and leaves the group. It blocks, and never returns when no broker responds to
    // a fenced member.
    let leaving = tokio::task::spawn_blocking(move || drop(source));
    if !matches!(tokio::time::timeout(LEAVE_TIMEOUT, leaving).await, Ok(Ok(()))) {
        tracing::warn!(consumer = consumer.name, "the last offsets may not be committed; their events are read again");
    }
}

fn find(source: &Source, message: &BorrowedMessage<'_>) -> Option<Arc<Partition>> {
    source.context().partitions().get(message.topic())?.get(&message.partition()).cloned()
}

/// An event that the handler does not want never touches the database.
fn read(message: &BorrowedMessage<'_>, consumer: &Consumer, clock: &Clock) -> Item {
    let content = match wire::event_type(message) {
        Some(event_type) if !consumer.handler.wants(event_type) => Content::Unwanted,
        Some(_) => match wire::parse(message) {
            Ok(record) => Content::Event(record),
            Err(why) => Content::Unreadable(raw(message, clock), why),
        },
        None => Content::Unreadable(raw(message, clock), wire::Unreadable("ce_type")),
    };
    Item { offset: message.offset(), content }
}

/// A record that is no event of ours, as a dead letter under the nil key.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn group(state: &str, join_state: &str, assignment_size: i32) -> ConsumerGroup {
        ConsumerGroup { state: state.into(), join_state: join_state.into(), assignment_size, ..Default::default() }
    }

    /// Whether a member is stuck after it saw these states for longer than the timeout.
    fn is_stuck(seen: &[ConsumerGroup]) -> bool {
        let (mut waiting, begun) = (Waiting::default(), Instant::now());
        let (before, last) = (&seen[..seen.len() - 1], &seen[seen.len() - 1]);
        before.iter().for_each(|group| waiting.observe(group, begun));
        waiting.observe(last, begun);
        assert!(!waiting.is_stuck(begun), "not yet: {seen:?}");
        waiting.observe(last, begun + ASSIGNMENT_TIMEOUT);
        waiting.is_stuck(begun + ASSIGNMENT_TIMEOUT)
    }

    #[test]
    fn a_member_that_waits_too_long_for_partitions_is_stuck() {
        assert!(
            is_stuck(&[group("up", "steady", 12), group("up", "wait-join", 0)]),
            "it lost them, and joins for ever"
        );
        assert!(is_stuck(&[group("up", "steady", 12), group("up", "steady", 0)]), "it lost them, and joins no more");
        assert!(is_stuck(&[group("up", "wait-sync", 0)]), "it never joined");
        assert!(!is_stuck(&[group("up", "steady", 0)]), "there are more members than partitions");
        assert!(!is_stuck(&[group("up", "steady", 12)]));
        assert!(!is_stuck(&[group("up", "steady", 12), group("wait-coord", "init", 0)]), "brokers do not respond");
    }
}
