//! The worker of one partition: handles its events in order, those that wait in one transaction.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics::{self, ByConsumer};
use chassis::event::inbox::MAX_PER_TRANSACTION;
use chassis::event::{Consumer, Record};
use chassis::event::{dead_letter, inbox};
use chassis::{Backoff, Clock, Unexpected};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::wire;

/// How many events of a partition may wait in memory. When the queue is full, reading stops for all partitions.
const QUEUE: usize = 1_024;
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

static UNREADABLE: LazyLock<Family<ByConsumer, Counter>> =
    LazyLock::new(|| metrics::register("events_unreadable", "Records that are no events of ours", Family::default()));
static RETRIED: LazyLock<Family<ByConsumer, Counter>> = LazyLock::new(|| {
    metrics::register("events_retried", "Failed attempts to handle events, which are retried", Family::default())
});
static SECONDS: LazyLock<Family<ByConsumer, Histogram>> = LazyLock::new(|| {
    let make: fn() -> Histogram = || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0]);
    metrics::register(
        "events_seconds",
        "Time from an event's occurrence to the commit of its effect",
        Family::new_with_constructor(make),
    )
});

/// A record that waits.
pub(crate) struct Item {
    pub(crate) offset: i64,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    /// The handler does not want it: only its offset is stored.
    Unwanted,
    Event(Record),
    /// No event of ours, and why. It becomes a dead letter without a key, and parks no key.
    Unreadable(Record, wire::Unreadable),
}

/// The reader's side of one partition.
pub(crate) struct Partition {
    topic: String,
    number: i32,
    queue: Sender<Item>,
    /// Cancelled by a rebalance: the events in the queue now belong to another member.
    revoked: CancellationToken,
}

impl Partition {
    /// Returns it with the worker that must be run for it.
    pub(crate) fn open(
        topic: &str,
        number: i32,
        consumer: Consumer,
        clock: Clock,
        stop: CancellationToken,
    ) -> (Arc<Self>, Worker) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let revoked = CancellationToken::new();
        let partition = Arc::new(Self { topic: topic.to_owned(), number, queue, revoked });
        let worker = Worker { partition: partition.clone(), consumer, clock, waiting, stop };
        (partition, worker)
    }

    pub(crate) fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Waits for room in the queue. If the worker has ended, the partition was revoked or the consumer stops: its next
    /// owner reads the item again.
    pub(crate) async fn push(&self, item: Item) {
        let _ = self.queue.send(item).await;
    }
}

pub(crate) struct Worker {
    partition: Arc<Partition>,
    consumer: Consumer,
    clock: Clock,
    waiting: Receiver<Item>,
    stop: CancellationToken,
}

impl Worker {
    /// Runs until `stop` is cancelled or the partition is revoked. A started batch is finished first.
    pub(crate) async fn run<C: ConsumerContext>(mut self, source: Arc<StreamConsumer<C>>) {
        let mut items = Vec::with_capacity(MAX_PER_TRANSACTION);
        loop {
            tokio::select! {
                biased;
                () = self.partition.revoked.cancelled() => return,
                () = self.stop.cancelled() => return,
                // The channel is never closed: the worker holds a sender, too.
                _ = self.waiting.recv_many(&mut items, MAX_PER_TRANSACTION) => {}
            }
            let last = items.last().map(|item| item.offset);
            let (mut records, mut unreadable) = (Vec::new(), Vec::new());
            for item in items.drain(..) {
                match item.content {
                    Content::Unwanted => {}
                    Content::Event(record) => records.push(record),
                    Content::Unreadable(record, why) => unreadable.push((record, why)),
                }
            }
            if !self.consume(&records).await || !self.add_dead_letters(&unreadable).await {
                return;
            }
            // Correct even if the partition was revoked meanwhile: the effect is committed. If it is lower than the next
            // owner's offset, records are read again, and the inbox drops them as duplicates.
            if let Some(offset) = last {
                let Partition { topic, number, .. } = &*self.partition;
                if let Err(error) = source.store_offset(topic, *number, offset) {
                    // The client refuses offsets of a partition that is no longer assigned to it.
                    tracing::debug!(topic, partition = number, %error, "an offset was not stored");
                }
            }
        }
    }

    /// Retries with backoff until `attempt` succeeds. Returns false if it stops before, or the partition is revoked.
    async fn retry<F: Future<Output = Result<(), Unexpected>>>(&self, attempt: impl Fn() -> F) -> bool {
        let (backoff, mut failures) = (Backoff::new(MIN_BACKOFF, MAX_BACKOFF), 0);
        while let Err(error) = attempt().await {
            failures += 1;
            self.log_failure(&error, failures);
            tokio::select! {
                () = tokio::time::sleep(backoff.after(failures)) => {}
                () = self.partition.revoked.cancelled() => return false,
                () = self.stop.cancelled() => return false,
            }
        }
        true
    }

    async fn add_dead_letters(&self, unreadable: &[(Record, wire::Unreadable)]) -> bool {
        let Consumer { name, db, .. } = &self.consumer;
        for (record, why) in unreadable {
            UNREADABLE.get_or_create(&ByConsumer::new(*name)).inc();
            let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
            tracing::error!(consumer = name, topic, partition, offset, %why, "the consumer cannot read a record; it is a dead letter now");
            let insert = async || {
                let mut db = db.acquire().await?;
                dead_letter::insert(&mut db, name, &self.clock, record, &why.to_string()).await
            };
            if !self.retry(insert).await {
                return false;
            }
        }
        true
    }

    async fn consume(&self, records: &[Record]) -> bool {
        if !self.retry(|| inbox::consume(&self.consumer, &self.clock, records)).await {
            return false;
        }
        let (seconds, now) = (SECONDS.get_or_create_owned(&ByConsumer::new(self.consumer.name)), self.clock.now());
        for record in records {
            seconds.observe((now - record.occurred_at).as_seconds_f64().max(0.0));
        }
        true
    }

    fn log_failure(&self, error: &Unexpected, failures: u32) {
        RETRIED.get_or_create(&ByConsumer::new(self.consumer.name)).inc();
        let Partition { topic, number, .. } = &*self.partition;
        tracing::warn!(
            consumer = self.consumer.name,
            topic,
            partition = number,
            %error,
            failures,
            "the consumer cannot handle events; it retries"
        );
    }
}
