//! What the tests stand on: a topic, aggregates that tell about themselves, and a handler that writes down what it hears.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::Clock;
use chassis::boot::metrics;
use chassis::event::dead_letter;
use chassis::event::outbox::{self, Event, Outbox, Wake};
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

pub(crate) fn brokers() -> String {
    std::env::var("SOUK_TEST_KAFKA").unwrap_or_else(|_| "127.0.0.1:29092".to_owned())
}

/// Looks until it is so.
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

/// What a metric says of something.
pub(crate) fn metric(name: &str, of: &str) -> f64 {
    let line = format!("souk_{name}{{of=\"{of}\"}} ");
    let page = metrics::render();
    page.lines().find_map(|it| it.strip_prefix(&line)).map_or(0.0, |value| value.parse().expect("a number"))
}

pub(crate) struct Ground {
    pub(crate) db: PgPool,
    pub(crate) topic: &'static str,
    pub(crate) outbox: Outbox,
    pub(crate) producer: FutureProducer,
}

impl Ground {
    pub(crate) async fn open(db: PgPool) -> Self {
        let topic: &'static str = format!("souk.test.{}", Uuid::now_v7()).leak();
        let made = bus::topics::create(&brokers(), &[topic], 1, Duration::from_secs(15)).await;
        if let Err(error) = made {
            panic!("these tests need a Kafka at {} (SOUK_TEST_KAFKA says where): {error}", brokers());
        }
        for table in [
            "create table aggregate (key uuid primary key, version bigint not null)",
            "create table heard (id bigint generated always as identity, key uuid not null, version bigint not null)",
        ] {
            sqlx::query(table).execute(&db).await.expect("a table for the test");
        }
        let outbox = Outbox { db: db.clone(), wake: Wake::default() };
        Self { db, topic, outbox, producer: bus::producer(&brokers()).expect("the settings are right") }
    }

    /// One transaction in which an aggregate changes and tells about it. How it ends is the caller's.
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
        outbox::append(&mut tx, &event).await.expect("the outbox takes it");
        (tx, version)
    }

    pub(crate) async fn commit(&self, key: Uuid) {
        let (tx, _) = self.change(key).await;
        tx.commit().await.expect("the database is there");
        self.outbox.wake.wake();
    }

    /// Everything that was committed is published, and forgotten.
    pub(crate) async fn published(&self) {
        eventually("an empty outbox", async || {
            let left: i64 =
                sqlx::query_scalar("select count(*) from outbox").fetch_one(&self.db).await.expect("a count");
            (left == 0).then_some(())
        })
        .await;
    }

    /// What stands in the topic, by key, in the order of the topic.
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

    /// Puts an event into the topic without any outbox. Where it went.
    pub(crate) async fn say(&self, key: Uuid, version: i64) -> i32 {
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

    /// Something that is no event of ours, among those of a key.
    pub(crate) async fn babble(&self, key: Uuid) {
        let key = key.to_string();
        let record = FutureRecord::to(self.topic).key(&key).payload(&b"babble"[..]);
        self.producer.send(record, PATIENCE).await.expect("the broker is there");
    }

    pub(crate) fn scribe(&self) -> Listener {
        let scribe = Arc::<Scribe>::default();
        let name: &'static str = format!("scribe-{}", Uuid::now_v7()).leak();
        let topics = vec![self.topic].leak();
        Listener { consumer: Consumer { name, topics, db: self.db.clone(), handler: scribe.clone() }, scribe }
    }

    /// What had an effect, in the order of the effects, by key.
    pub(crate) async fn heard(&self) -> BTreeMap<Uuid, Vec<i64>> {
        let rows = sqlx::query_as::<_, (Uuid, i64)>("select key, version from heard order by id");
        let mut heard = BTreeMap::<Uuid, Vec<i64>>::new();
        for (key, version) in rows.fetch_all(&self.db).await.expect("the scribe's table") {
            heard.entry(key).or_default().push(version);
        }
        heard
    }

    /// Waits until so many events had an effect.
    pub(crate) async fn hears(&self, count: i64) {
        eventually(&format!("{count} effects"), async || {
            let seen = sqlx::query_scalar::<_, i64>("select count(*) from heard").fetch_one(&self.db).await;
            seen.is_ok_and(|seen| seen >= count).then_some(())
        })
        .await;
    }
}

/// Writes down what it hears, twice if it hears it twice.
#[derive(Default)]
pub(crate) struct Scribe {
    pub(crate) refused: Mutex<Vec<(Uuid, i64)>>,
    /// A key of which it writes nothing while somebody else has its pen.
    pub(crate) pens: Mutex<HashMap<Uuid, Arc<RwLock<()>>>>,
}

impl Scribe {
    pub(crate) fn pen(&self, key: Uuid) -> Arc<RwLock<()>> {
        self.pens.lock().expect("no panics").entry(key).or_default().clone()
    }
}

#[tonic::async_trait]
impl Handler for Scribe {
    fn wants(&self, event_type: &str) -> bool {
        event_type == SAID
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        for due in due {
            self.handle(tx, due.record).await?;
        }
        Ok(())
    }
}

impl Scribe {
    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        let pen = self.pen(record.key);
        let _pen = pen.read().await;
        sqlx::query("insert into heard (key, version) values ($1, $2)")
            .bind(record.key)
            .bind(record.version)
            .execute(tx)
            .await?;
        let refused = self.refused.lock().expect("no panics").contains(&(record.key, record.version));
        if refused { Err(HandleError::Poisoned("refused".to_owned())) } else { Ok(()) }
    }
}

pub(crate) struct Listener {
    pub(crate) consumer: Consumer,
    pub(crate) scribe: Arc<Scribe>,
}

impl Listener {
    pub(crate) fn start(&self) -> Running {
        self.start_with(bus::consumer_config(&brokers()))
    }

    pub(crate) fn start_with(&self, config: ClientConfig) -> Running {
        let consumer = self.consumer.clone();
        Running::start(|stop| async move { bus::consume(&config, consumer, Clock::System, stop).await })
    }

    pub(crate) async fn letters(&self) -> Vec<(Uuid, i64, String)> {
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
