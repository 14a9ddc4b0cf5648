//! The work on one partition: its events in their order, with those that wait sharing a transaction.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics::{self, Of};
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

/// How many events of a partition may wait in memory. With more, reading waits for it, and the other partitions soon too.
const WAITING: usize = 1_024;
/// How many of them are taken in at once.
const TOGETHER: usize = 32;
const FASTEST_RETRY: Duration = Duration::from_millis(10);
const SLOWEST_RETRY: Duration = Duration::from_secs(5);

static UNREADABLE: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_unreadable", "Records that are no events of ours", Family::default()));
static RETRIED: LazyLock<Family<Of, Counter>> = LazyLock::new(|| {
    metrics::register("events_retried", "Times that events had to wait to be handled", Family::default())
});
static SECONDS: LazyLock<Family<Of, Histogram>> = LazyLock::new(|| {
    let make: fn() -> Histogram = || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0]);
    metrics::register("events_seconds", "From when events occurred to their effect", Family::new_with_constructor(make))
});

/// What waits.
pub(crate) struct Item {
    pub(crate) offset: i64,
    pub(crate) what: What,
}

pub(crate) enum What {
    /// Nobody here wants it: only how far to store.
    Unwanted,
    Event(Record),
    /// No event of ours, and why. It is kept among the dead letters, under no key, and holds nobody up.
    Unreadable(Record, wire::Unreadable),
}

/// The reader's end of one partition.
pub(crate) struct Partition {
    topic: String,
    number: i32,
    queue: Sender<Item>,
    /// Set when the partition is given up: what waits is somebody else's now.
    given_up: CancellationToken,
}

impl Partition {
    /// With the job that must be run for it.
    pub(crate) fn open(
        topic: &str,
        number: i32,
        consumer: Consumer,
        clock: Clock,
        stop: CancellationToken,
    ) -> (Arc<Self>, Job) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let given_up = CancellationToken::new();
        let partition = Arc::new(Self { topic: topic.to_owned(), number, queue, given_up });
        let job = Job { partition: partition.clone(), consumer, clock, waiting, stop };
        (partition, job)
    }

    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Adds to what waits, when there is room. One whose job is gone was given up, or all are told to stop: then whoever
    /// has it next reads this again.
    pub(crate) async fn push(&self, item: Item) {
        let _ = self.queue.send(item).await;
    }
}

pub(crate) struct Job {
    partition: Arc<Partition>,
    consumer: Consumer,
    clock: Clock,
    waiting: Receiver<Item>,
    stop: CancellationToken,
}

impl Job {
    /// Until told to stop or to give up. What was begun is finished.
    pub(crate) async fn run<C: ConsumerContext>(mut self, source: Arc<StreamConsumer<C>>) {
        let mut items = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                biased;
                () = self.partition.given_up.cancelled() => return,
                () = self.stop.cancelled() => return,
                // It never ends by itself: the job holds a sender too.
                _ = self.waiting.recv_many(&mut items, TOGETHER) => {}
            }
            let last = items.last().map(|item| item.offset);
            let (mut records, mut unreadable) = (Vec::new(), Vec::new());
            for item in items.drain(..) {
                match item.what {
                    What::Unwanted => {}
                    What::Event(record) => records.push(record),
                    What::Unreadable(record, why) => unreadable.push((record, why)),
                }
            }
            if !self.take_in(&records).await || !self.keep(&unreadable).await {
                return;
            }
            // True even if the partition was given up meanwhile, for the effect is committed. An offset behind that of another
            // owner makes records be read again, and the inbox drops them as repeats.
            if let Some(offset) = last {
                let Partition { topic, number, .. } = &*self.partition;
                if let Err(error) = source.store_offset(topic, *number, offset) {
                    // The client refuses it for a partition that is not assigned to it any more.
                    tracing::debug!(topic, partition = number, %error, "an offset was not stored");
                }
            }
        }
    }

    /// Tries until it succeeds. False: it was told to stop, or to give the partition up.
    async fn insist<F: Future<Output = Result<(), Unexpected>>>(&self, what: impl Fn() -> F) -> bool {
        let (backoff, mut failures) = (Backoff::new(FASTEST_RETRY, SLOWEST_RETRY), 0);
        while let Err(error) = what().await {
            failures += 1;
            self.complain(&error, failures);
            tokio::select! {
                () = tokio::time::sleep(backoff.after(failures)) => {}
                () = self.partition.given_up.cancelled() => return false,
                () = self.stop.cancelled() => return false,
            }
        }
        true
    }

    async fn keep(&self, unreadable: &[(Record, wire::Unreadable)]) -> bool {
        let Consumer { name, db, .. } = &self.consumer;
        for (record, why) in unreadable {
            UNREADABLE.get_or_create(&Of::new(*name)).inc();
            let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
            tracing::error!(consumer = name, topic, partition, offset, %why, "a record cannot be read");
            let insert = async || {
                let mut db = db.acquire().await?;
                dead_letter::insert(&mut db, name, &self.clock, record, &why.to_string()).await
            };
            if !self.insist(insert).await {
                return false;
            }
        }
        true
    }

    async fn take_in(&self, records: &[Record]) -> bool {
        if !self.insist(|| inbox::take_in(&self.consumer, &self.clock, records)).await {
            return false;
        }
        let (seconds, now) = (SECONDS.get_or_create_owned(&Of::new(self.consumer.name)), self.clock.now());
        for record in records {
            seconds.observe((now - record.occurred_at).as_seconds_f64().max(0.0));
        }
        true
    }

    fn complain(&self, error: &Unexpected, failures: u32) {
        RETRIED.get_or_create(&Of::new(self.consumer.name)).inc();
        let Partition { topic, number, .. } = &*self.partition;
        tracing::warn!(
            consumer = self.consumer.name,
            topic,
            partition = number,
            %error,
            failures,
            "events wait and are tried again"
        );
    }
}
