//! Hands events to a service's handler: partitions at the same time, within a partition in order, with those that wait
//! sharing a transaction. An offset is stored after the effects of everything before it are committed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use chassis::Clock;
use chassis::consume::{Consumer, Record};
use chassis::metrics::{self, Of};
use chassis::{Unexpected, dead_letter, inbox};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, ClientContext, Message};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::wire;

/// How many events of a partition wait in memory.
const QUEUE: usize = 256;
/// How many of them are taken in at once.
const TOGETHER: usize = 32;
const SLOWEST_RETRY: Duration = Duration::from_secs(5);

static RETRIED: LazyLock<Family<Of, Counter>> = LazyLock::new(|| {
    metrics::register("events_retried", "Times that events had to wait to be handled", Family::default())
});
static UNREADABLE: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("events_unreadable", "Records that are no events of ours", Family::default()));
static FAILURES: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| metrics::register("consumer_failures", "Failures to read from the broker", Family::default()));

type Partition = (String, i32);

/// What waits for one partition's worker: an event, or how far to store when there is nothing to do.
struct Item {
    offset: i64,
    record: Option<Record>,
}

struct Worker {
    queue: Sender<Item>,
    /// Set when the partition is given up: what waits is somebody else's now.
    given_up: CancellationToken,
}

#[derive(Default)]
struct Workers(Mutex<HashMap<Partition, Worker>>);

impl Workers {
    fn give_up(&self, partitions: impl Iterator<Item = Partition>) {
        let mut workers = self.0.lock().expect("nothing panics while it holds this lock");
        for partition in partitions {
            if let Some(worker) = workers.remove(&partition) {
                worker.given_up.cancel();
            }
        }
    }

    fn queue(&self, partition: &Partition) -> Option<Sender<Item>> {
        let workers = self.0.lock().expect("nothing panics while it holds this lock");
        workers.get(partition).map(|worker| worker.queue.clone())
    }
}

struct Watch {
    workers: Arc<Workers>,
}

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let partitions = partitions.elements();
            let partitions = partitions.iter().map(|it| (it.topic().to_owned(), it.partition()));
            self.workers.give_up(partitions);
        }
    }
}

type Source = StreamConsumer<Watch>;

/// Consumes until told to stop. What was begun is finished, and its offsets are committed, before it returns.
pub async fn consume(config: &ClientConfig, consumer: Consumer, clock: Clock, stop: CancellationToken) {
    let workers = Arc::new(Workers::default());
    let mut config = config.clone();
    config.set("group.id", consumer.name).set("client.id", consumer.name);
    let source: Arc<Source> = match config.create_with_context(Watch { workers: workers.clone() }) {
        Ok(source) => Arc::new(source),
        Err(error) => return tracing::error!(consumer = consumer.name, %error, "the consumer's settings are wrong"),
    };
    if let Err(error) = source.subscribe(consumer.topics) {
        return tracing::error!(consumer = consumer.name, %error, "the topics cannot be subscribed to");
    }
    let mut tasks = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = source.recv() => message,
            () = stop.cancelled() => break,
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                FAILURES.get_or_create(&Of::new(consumer.name)).inc();
                tracing::warn!(consumer = consumer.name, %error, "nothing can be read right now");
                continue;
            }
        };
        let item = match read(&message, &consumer) {
            Ok(record) => Item { offset: message.offset(), record },
            Err(unreadable) => {
                bury(&consumer, &clock, &message, &unreadable.to_string()).await;
                Item { offset: message.offset(), record: None }
            }
        };
        let partition = (message.topic().to_owned(), message.partition());
        let queue = workers.queue(&partition).unwrap_or_else(|| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let given_up = stop.child_token();
            let worker = Worker { queue: queue.clone(), given_up: given_up.clone() };
            workers.0.lock().expect("nothing panics while it holds this lock").insert(partition.clone(), worker);
            let job = Job { consumer: consumer.clone(), clock: clock.clone(), partition, given_up };
            tasks.spawn(job.run(waiting, source.clone()));
            queue
        });
        tokio::select! {
            // A worker that is gone gave its partition up; whoever has it now reads this again.
            _ = queue.send(item) => {}
            () = stop.cancelled() => break,
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

/// None: an event that nobody here wants, which never touches the database.
fn read(message: &BorrowedMessage<'_>, consumer: &Consumer) -> Result<Option<Record>, wire::Unreadable> {
    let kind = wire::kind(message).ok_or(wire::Unreadable("ce_type"))?;
    if consumer.handler.wants(kind) { wire::parse(message).map(Some) } else { Ok(None) }
}

/// A record that is no event of ours holds nobody up: it is kept among the dead letters, under no key.
async fn bury(consumer: &Consumer, clock: &Clock, message: &BorrowedMessage<'_>, error: &str) {
    UNREADABLE.get_or_create(&Of::new(consumer.name)).inc();
    tracing::error!(
        consumer = consumer.name,
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        error,
        "a record cannot be read"
    );
    let record = Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: Uuid::nil(),
        version: 0,
        event_id: Uuid::nil(),
        kind: "unreadable".to_owned(),
        payload: message.payload().unwrap_or_default().to_vec(),
        actor: "unknown".to_owned(),
        causation_id: None,
        occurred_at: clock.now(),
        traceparent: None,
    };
    let kept = async {
        let mut db = consumer.db.acquire().await?;
        dead_letter::insert(&mut db, consumer.name, clock, &record, error).await
    };
    if let Err(error) = kept.await {
        tracing::error!(consumer = consumer.name, %error, "an unreadable record could not be kept; it stays in its topic");
    }
}

/// The work on one partition.
struct Job {
    consumer: Consumer,
    clock: Clock,
    partition: Partition,
    given_up: CancellationToken,
}

impl Job {
    async fn run(self, mut waiting: Receiver<Item>, source: Arc<Source>) {
        let mut items = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut items, TOGETHER) => if count == 0 { return },
                () = self.given_up.cancelled() => return,
            }
            let last = items.last().map(|item| item.offset);
            let records: Vec<_> = items.drain(..).filter_map(|item| item.record).collect();
            if !self.take_in(&records).await {
                return;
            }
            let (topic, partition) = &self.partition;
            if let Some(offset) = last
                && let Err(error) = source.store_offset(topic, *partition, offset)
            {
                // The partition is somebody else's now; what it reads again it finds in its inbox.
                tracing::debug!(consumer = self.consumer.name, topic, partition, %error, "an offset was not stored");
            }
        }
    }

    /// Tries until it succeeds or the partition is given up. False: it was.
    async fn take_in(&self, records: &[Record]) -> bool {
        let mut failures = 0_u32;
        loop {
            match inbox::take_in(&self.consumer, &self.clock, records).await {
                Ok(()) => return true,
                Err(error) => self.complain(&error, &mut failures),
            }
            tokio::select! {
                () = tokio::time::sleep(SLOWEST_RETRY.min(Duration::from_millis(10 << failures.min(10)))) => {}
                () = self.given_up.cancelled() => return false,
            }
        }
    }

    fn complain(&self, error: &Unexpected, failures: &mut u32) {
        *failures += 1;
        RETRIED.get_or_create(&Of::new(self.consumer.name)).inc();
        let (topic, partition) = &self.partition;
        tracing::warn!(consumer = self.consumer.name, topic, partition, %error, failures, "events wait and are tried again");
    }
}
