//! The harness: a topic, aggregates that append an event for each change, and a handler that inserts what it handles.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::Clock;
use chassis::Wake;
use chassis::boot::metrics;
use chassis::event::dead_letter;
use chassis::event::outbox::{self, Event, Outbox};
use chassis::event::{Consumer, Due, HandleError, Handler, Record};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::{PgConnection, PgPool};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SAID: &str = "souk.test.v1.Said";

pub(crate) fn address() -> String {
    std::env::var("SOUK_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:29092".to_owned())
}

pub(crate) fn brokers() -> bus::Brokers {
    bus::Brokers::plain(&address())
}

/// Polls until `look` returns something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("not seen in time: {what}"))
}

/// A metric of the relay of a service.
pub(crate) fn service_metric(name: &str, service: &str) -> f64 {
    metric(name, "service", service)
}

pub(crate) fn consumer_metric(name: &str, consumer: &str) -> f64 {
    metric(name, "consumer", consumer)
}

fn metric(name: &str, label: &str, value: &str) -> f64 {
    let line = format!("souk_{name}{{{label}=\"{value}\"}} ");
    let page = metrics::render();
    page.lines().find_map(|it| it.strip_prefix(&line)).map_or(0.0, |value| value.parse().expect("a number"))
}

pub(crate) struct Harness {
    pub(crate) db: PgPool,
    pub(crate) topic: &'static str,
    pub(crate) outbox: Outbox,
    pub(crate) producer: FutureProducer,
}

impl Harness {
    pub(crate) async fn new(db: PgPool) -> Self {
        let topic: &'static str = format!("souk.test.{}", Uuid::now_v7()).leak();
        let made = bus::topics::create(&brokers(), &[topic], 1, Duration::from_secs(15)).await;
        if let Err(error) = made {
            panic!("these tests need a Kafka at {} (set SOUK_TEST_KAFKA): {error}", address());
        }
        for table in [
            "create table aggregate (key uuid primary key, version bigint not null)",
            "create table handled (id bigint generated always as identity, key uuid not null, version bigint not null)",
        ] {
            sqlx::query(table).execute(&db).await.expect("a table for the test");
        }
        let outbox = Outbox { db: db.clone(), wake: Wake::default(), changed: None };
        Self { db, topic, outbox, producer: bus::producer(&brokers()).expect("the settings are right") }
    }

    /// A transaction that changes an aggregate and appends the event. The caller commits it or rolls it back.
    pub(crate) async fn change(&self, key: Uuid) -> (sqlx::Transaction<'static, sqlx::Postgres>, i64) {
        let mut tx = self.db.begin().await.expect("the database is there");
        let version: i64 = sqlx::query_scalar(
            "insert into aggregate values ($1, 1) on conflict (key) do update set version = aggregate.version + 1
             returning version",
        )
        .bind(key)
        .fetch_one(&mut *tx)
        .await
        .expect("the aggregate is locked");
        let event = Event {
            event_id: Uuid::now_v7(),
            topic: self.topic,
            key,
            version,
            event_type: SAID,
            payload: version.to_be_bytes().to_vec(),
            actor: "service:test".to_owned(),
            causation_id: Some(Uuid::from_u128(7)),
            occurred_at: Clock::System.now(),
        };
        outbox::append(&mut tx, &event).await.expect("the event is appended");
        (tx, version)
    }

    pub(crate) async fn commit(&self, key: Uuid) {
        let (tx, _) = self.change(key).await;
        tx.commit().await.expect("the database is there");
        self.outbox.wake.wake();
    }

    /// Waits until everything that was committed is published, and deleted from the outbox.
    pub(crate) async fn published(&self) {
        eventually("an empty outbox", async || {
            let left: i64 =
                sqlx::query_scalar("select count(*) from outbox").fetch_one(&self.db).await.expect("a count");
            (left == 0).then_some(())
        })
        .await;
    }

    /// The events in the topic, by key, in the order of the topic.
    pub(crate) async fn read(&self) -> BTreeMap<Uuid, Vec<Record>> {
        let mut config = bus::consumer_config(&brokers());
        config.set("group.id", "never-used").set("enable.auto.commit", "false");
        let reader: StreamConsumer = config.create().expect("the settings are right");
        let (mut list, mut count) = (TopicPartitionList::new(), 0);
        for partition in 0..12 {
            let (low, high) = reader.fetch_watermarks(self.topic, partition, PATIENCE).expect("the partition is there");
            count += high - low;
            list.add_partition_offset(self.topic, partition, Offset::Beginning).expect("the offset is one");
        }
        reader.assign(&list).expect("the partitions are there");
        let mut records = BTreeMap::<Uuid, Vec<Record>>::new();
        for _ in 0..count {
            let message = tokio::time::timeout(PATIENCE, reader.recv()).await.expect("in time").expect("readable");
            let record = bus::parse(&message).expect("an event of ours");
            assert_eq!(message.key(), Some(record.key.to_string().as_bytes()));
            records.entry(record.key).or_default().push(record);
        }
        records
    }

    /// Sends an event without an outbox. Returns its partition.
    pub(crate) async fn send(&self, key: Uuid, version: i64) -> i32 {
        let headers = [
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", Uuid::now_v7().to_string()),
            ("ce_type", SAID.to_owned()),
            ("ce_source", "/souk/test".to_owned()),
            ("ce_time", "2026-01-01T00:00:00Z".to_owned()),
            ("ce_subject", key.to_string()),
            ("ce_sequence", version.to_string()),
            ("ce_actor", "service:test".to_owned()),
        ];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let key = key.to_string();
        let record = FutureRecord::to(self.topic).key(&key).payload(&b"said"[..]).headers(headers);
        self.producer.send(record, PATIENCE).await.expect("the broker is there").partition
    }

    /// Sends a record that is no event of ours to the partition of a key.
    pub(crate) async fn send_unreadable(&self, key: Uuid) {
        let key = key.to_string();
        let record = FutureRecord::to(self.topic).key(&key).payload(&b"unreadable"[..]);
        self.producer.send(record, PATIENCE).await.expect("the broker is there");
    }

    pub(crate) fn consumer(&self) -> TestConsumer {
        let handler = Arc::<TestHandler>::default();
        let name: &'static str = format!("test-{}", Uuid::now_v7()).leak();
        let topics = vec![self.topic].leak();
        TestConsumer { consumer: Consumer { name, topics, db: self.db.clone(), handler: handler.clone() }, handler }
    }

    /// The versions that were handled, by key, in the order in which they were.
    pub(crate) async fn handled(&self) -> BTreeMap<Uuid, Vec<i64>> {
        let rows = sqlx::query_as::<_, (Uuid, i64)>("select key, version from handled order by id");
        let mut handled = BTreeMap::<Uuid, Vec<i64>>::new();
        for (key, version) in rows.fetch_all(&self.db).await.expect("the handler's table") {
            handled.entry(key).or_default().push(version);
        }
        handled
    }

    /// Waits until `count` events were handled.
    pub(crate) async fn wait_for_handled(&self, count: i64) {
        eventually(&format!("{count} handled events"), async || {
            let seen = sqlx::query_scalar::<_, i64>("select count(*) from handled").fetch_one(&self.db).await;
            seen.is_ok_and(|seen| seen >= count).then_some(())
        })
        .await;
    }
}

/// Inserts each event that it handles, and would insert a duplicate twice.
#[derive(Default)]
pub(crate) struct TestHandler {
    pub(crate) refused: Mutex<Vec<(Uuid, i64)>>,
    pub(crate) gathers_for: Mutex<Duration>,
    /// No event of a key is handled while a test holds its lock for writing.
    locks: Mutex<HashMap<Uuid, Arc<RwLock<()>>>>,
}

impl TestHandler {
    pub(crate) fn key_lock(&self, key: Uuid) -> Arc<RwLock<()>> {
        self.locks.lock().expect("no panics").entry(key).or_default().clone()
    }
}

#[tonic::async_trait]
impl Handler for TestHandler {
    fn wants(&self, event_type: &str) -> bool {
        event_type == SAID
    }

    fn gathers_for(&self) -> Duration {
        *self.gathers_for.lock().expect("no panics")
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        for due in due {
            self.handle(tx, due.record).await?;
        }
        Ok(())
    }
}

impl TestHandler {
    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        let lock = self.key_lock(record.key);
        let _lock = lock.read().await;
        sqlx::query("insert into handled (key, version) values ($1, $2)")
            .bind(record.key)
            .bind(record.version)
            .execute(tx)
            .await?;
        let refused = self.refused.lock().expect("no panics").contains(&(record.key, record.version));
        if refused { Err(HandleError::Poisoned("refused".to_owned())) } else { Ok(()) }
    }
}

pub(crate) struct TestConsumer {
    pub(crate) consumer: Consumer,
    pub(crate) handler: Arc<TestHandler>,
}

impl TestConsumer {
    pub(crate) fn start(&self) -> Running {
        self.start_with(bus::consumer_config(&brokers()))
    }

    pub(crate) fn start_with(&self, config: ClientConfig) -> Running {
        let consumer = self.consumer.clone();
        Running::start(|stop| async move { bus::consume(&config, consumer, Clock::System, stop).await })
    }

    pub(crate) async fn dead_letters(&self) -> Vec<(Uuid, i64, String)> {
        let letters = dead_letter::list(&self.consumer.db, Some(self.consumer.name), 0, 1_000).await.expect("letters");
        letters.into_iter().map(|letter| (letter.record.key, letter.record.version, letter.error)).collect()
    }
}

/// A background task of a role.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(task: impl FnOnce(CancellationToken) -> F) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(task(stop.clone())), stop }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.expect("it stops in time").expect("no panic");
    }
}
