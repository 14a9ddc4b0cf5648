//! Rebuilding from the topic, beside the live figures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use chassis::event::dead_letter::{self, Discard};
use chassis::event::{Progress, Reading, Record, Topic};
use chassis::{Next, Unexpected};
use contracts::souk::analytics::v1::*;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::figures::{assert_figures, interleaved, stories};
use super::{Fixture, MUG, Story};
use crate::{rebuild, retired};

/// How many records a reading returns at once.
const SOME: usize = 4;

/// A topic in memory, and how often it was opened.
#[derive(Default, Clone)]
struct InMemory(Arc<Mutex<Vec<Record>>>, Arc<AtomicU32>);

struct ReadingMemory {
    topic: InMemory,
    next: usize,
    end: usize,
}

impl InMemory {
    fn of(records: &[Record]) -> Self {
        Self(Arc::new(Mutex::new(records.to_vec())), Arc::default())
    }

    fn publish(&self, records: &[Record]) {
        self.0.lock().expect("nothing panics").extend_from_slice(records);
    }

    fn len(&self) -> usize {
        self.0.lock().expect("nothing panics").len()
    }
}

#[tonic::async_trait]
impl Topic for InMemory {
    async fn open(&self) -> Result<Box<dyn Reading>, Unexpected> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(ReadingMemory { topic: self.clone(), next: 0, end: self.len() }))
    }
}

#[tonic::async_trait]
impl Reading for ReadingMemory {
    async fn look_for_end(&mut self) -> Result<(), Unexpected> {
        self.end = self.topic.len();
        Ok(())
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unexpected> {
        let till = self.end.min(self.next + SOME);
        let records = self.topic.0.lock().expect("nothing panics")[self.next..till].to_vec();
        self.next = till;
        Ok(records)
    }

    fn progress(&self) -> Progress {
        Progress { read: self.next as i64, total: self.end as i64 }
    }
}

impl Fixture {
    async fn open_with(db: PgPool, topic: &InMemory) -> Self {
        let fixture = Self::open(db).await;
        fixture.topic.fill(Arc::new(topic.clone()));
        fixture
    }

    async fn request_rebuild(&self) -> Result<Projection, tonic::Status> {
        let request = self.kit.operator(RebuildProjectionRequest {});
        let response = self.client.clone().rebuild_projection(request).await?;
        Ok(response.into_inner().projection.expect("a success has it"))
    }

    /// Does one unit of the job.
    async fn unit(&self) -> Next {
        rebuild::rebuild(self.service.clone()).await.expect("the topic and the database are there")
    }

    async fn rebuild(&self) {
        while self.unit().await == Next::AtOnce {}
    }

    async fn rename(&self, table: &str, name: &str) {
        let sql = format!("alter table {table} rename to {name}");
        sqlx::query(AssertSqlSafe(sql)).execute(self.db()).await.expect("renamed");
    }

    fn db(&self) -> &PgPool {
        &self.service.db
    }
}

/// All rows of a projection but its id, by table.
async fn rows(db: &PgPool, projection_id: i64) -> BTreeMap<&'static str, String> {
    let mut rows = BTreeMap::new();
    for table in ["counted_order", "sales", "product_sales", "funnel", "confirmation_time"] {
        let sql = format!(
            "select coalesce(string_agg(it::text, E'\\n' order by it::text), '') from
               (select to_jsonb({table}) - 'projection_id' from {table} where projection_id = $1) as it"
        );
        let text = sqlx::query_scalar(AssertSqlSafe(sql)).bind(projection_id).fetch_one(db).await.expect("read");
        rows.insert(table, text);
    }
    rows
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_rebuild_while_events_go_on_equals_the_live_figures(db: PgPool) {
    let records = interleaved(stories());
    let topic = InMemory::of(&records[..20]);
    let fixture = Fixture::open_with(db, &topic).await;
    fixture.kit.deliver_together(&records[..17]).await;

    assert_eq!(fixture.request_rebuild().await.expect("none runs").projection_id, 2);
    assert_eq!(fixture.unit().await, Next::AtOnce);
    let status = fixture.status().await;
    let building = status.building.expect("it is being built");
    assert_eq!((building.read_records, building.total_records, building.live_time), (4, 20, None));
    assert_eq!(status.live.map(|live| live.projection_id), Some(1), "shown until the other is ready");
    let running = fixture.request_rebuild().await.expect("the same one");
    assert_eq!((running.projection_id, running.read_records), (2, 4), "one at a time is enough");

    // The topic and the live figures go on meanwhile.
    topic.publish(&records[20..]);
    fixture.kit.deliver_together(&records[17..25]).await;
    fixture.rebuild().await;
    let status = fixture.status().await;
    let live = status.live.expect("one is always shown");
    assert_eq!((live.projection_id, live.read_records, status.building), (2, records.len() as i64, None));
    assert!(live.live_time.is_some());
    assert_figures(&fixture).await;

    // What the consumer handles only now is in the new figures already.
    fixture.kit.deliver_together(&records[25..]).await;
    assert_figures(&fixture).await;
    assert_eq!(rows(fixture.db(), 1).await.len(), 5);
    // And what comes next is not.
    let next = Story::placed(77, "2026-06-02T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    fixture.kit.deliver_together(&next.records).await;
    assert_eq!(fixture.sales("2026-06-02", "2026-06-02", Granularity::Day).await.totals.len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_row_is_the_same_and_those_of_before_are_deleted(db: PgPool) {
    let records = interleaved(stories());
    let fixture = Fixture::open_with(db, &InMemory::of(&records)).await;
    fixture.kit.deliver_together(&records).await;
    fixture.request_rebuild().await.expect("none runs");
    fixture.rebuild().await;
    let (before, after) = (rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
    assert_eq!(before, after);
    assert!(before.values().all(|rows| !rows.is_empty()));
    while retired::delete(fixture.service.clone()).await.expect("deleted") == Next::AtOnce {}
    assert!(rows(fixture.db(), 1).await.values().all(String::is_empty));
    assert_eq!(rows(fixture.db(), 2).await, after);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_replica_that_is_gone_is_replaced_and_only_one_builds(db: PgPool) {
    let records = interleaved(stories());
    let topic = InMemory::of(&records);
    let (one, other) = (Fixture::open_with(db.clone(), &topic).await, Fixture::open_with(db, &topic).await);
    one.kit.deliver_together(&records).await;
    one.request_rebuild().await.expect("none runs");
    for _ in 0..3 {
        assert_eq!(one.unit().await, Next::AtOnce);
    }
    assert_eq!(other.unit().await, Next::AfterPause, "the first one has the lease");
    sqlx::query("update projection set leased_until = leased_until - interval '1 hour'")
        .execute(one.db())
        .await
        .expect("a long time passes");
    assert_eq!(other.unit().await, Next::AtOnce, "it begins again, and counts nothing twice");
    assert_eq!(one.unit().await, Next::AfterPause, "the lease was lost");
    other.rebuild().await;
    assert_eq!(one.status().await.live.map(|live| live.projection_id), Some(2));
    assert_eq!(rows(one.db(), 1).await, rows(one.db(), 2).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_event_that_cannot_be_handled_does_not_stop_a_rebuild(db: PgPool) {
    let mut records = interleaved(stories());
    let broken = Story::placed(99, "2026-06-01T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    records.splice(3..3, broken.records[1..].to_vec());
    let fixture = Fixture::open_with(db, &InMemory::of(&records)).await;
    fixture.kit.deliver_together(&records).await;
    assert_eq!(fixture.kit.parked().await, 3);
    fixture.request_rebuild().await.expect("none runs");
    fixture.rebuild().await;
    assert_figures(&fixture).await;
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_swap_waits_for_events_that_are_being_counted(db: PgPool) {
    let records = interleaved(stories());
    let fixture = Fixture::open_with(db, &InMemory::of(&records)).await;
    fixture.request_rebuild().await.expect("none runs");
    // A transaction of the consumer that has not committed yet.
    let mut tx = fixture.db().begin().await.expect("the database is there");
    let facts = [crate::fact::parse(&records[0]).expect("an event")];
    crate::project::add_to_live(&mut tx, &facts).await.expect("counted");
    let rebuild = tokio::spawn({
        let service = fixture.service.clone();
        async move { while rebuild::rebuild(service.clone()).await.expect("the topic is there") == Next::AtOnce {} }
    });
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                     and database = (select oid from pg_database where datname = current_database())";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(fixture.db()).await.expect("read") == 0 {}
    assert_eq!(fixture.status().await.live.map(|live| live.projection_id), Some(1));
    tx.commit().await.expect("committed");
    rebuild.await.expect("no panic");
    assert_eq!(fixture.status().await.live.map(|live| live.projection_id), Some(2));
    assert_figures(&fixture).await;
}

impl Fixture {
    /// Consumes records, of which the second of this order cannot be handled.
    async fn consume_poisoned(&self, records: &[Record], order_id: Uuid) {
        self.kit.deliver_together(records).await;
        let letters = dead_letter::list(self.db(), None, 0, 100).await.expect("dead letters can be read");
        let parked: Vec<_> = letters.iter().map(|letter| (letter.record.key, letter.record.version)).collect();
        assert_eq!(parked, [2, 3, 4].map(|version| (order_id, version)));
    }

    /// Discards the first dead letter, and redrives the others.
    async fn discard_first(&self, key: Uuid) {
        let letters = dead_letter::list(self.db(), None, 0, 1).await.expect("dead letters can be read");
        let consumer = self.kit.consumer();
        let what =
            Discard { consumer: consumer.name, key, ids: &[letters[0].id], reason: "broken", actor: "operator:olga" };
        dead_letter::discard(self.db(), &self.service.clock, what).await.expect("it is there");
        dead_letter::redrive(consumer, key, "operator:olga").await.expect("the others can be handled");
        assert_eq!(self.sales("2026-06-03", "2026-06-03", Granularity::Day).await.totals.len(), 1);
    }
}

/// The records of some orders, and among them those of one whose second event cannot be handled.
fn poisoned() -> (Vec<Record>, Uuid) {
    let mut records = interleaved(stories());
    let mut story = Story::placed(99, "2026-06-03T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    story.records[1].payload = b"no event".to_vec();
    records.splice(3..3, story.records.clone());
    (records, story.order_id)
}

/// A relay repeats events of which it knows no acknowledgement, and no inbox is before a rebuild.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_rebuild_counts_repeated_events_once(db: PgPool) {
    let records = interleaved(stories());
    let fixture = Fixture::open_with(db, &InMemory::of(&[&records[..]; 3].concat())).await;
    fixture.kit.deliver_together(&records).await;
    fixture.request_rebuild().await.expect("none runs");
    fixture.rebuild().await;
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
    assert_figures(&fixture).await;
}

/// The consumer handles what comes after a discarded event, and so does a rebuild, also if the event was published again.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_a_discarded_event_itself_is_left_out(db: PgPool) {
    let (mut records, order_id) = poisoned();
    let again = Record { offset: 1_000, ..records[4].clone() };
    records.insert(6, again);
    let fixture = Fixture::open_with(db, &InMemory::of(&records)).await;
    records.remove(6);
    fixture.consume_poisoned(&records, order_id).await;
    fixture.discard_first(order_id).await;
    fixture.request_rebuild().await.expect("none runs");
    fixture.rebuild().await;
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_discarded_during_a_rebuild_is_left_out_and_nothing_else(db: PgPool) {
    let (records, order_id) = poisoned();
    let topic = InMemory::of(&records);
    let fixture = Fixture::open_with(db, &topic).await;
    fixture.consume_poisoned(&records, order_id).await;
    fixture.request_rebuild().await.expect("none runs");
    // The order is among the first that are read.
    for _ in 0..4 {
        fixture.unit().await;
    }
    fixture.discard_first(order_id).await;
    fixture.rebuild().await;
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
    assert_eq!(topic.1.load(Ordering::Relaxed), 2, "the topic was read again, once");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_failed_unit_is_repeated_without_reading_the_topic_again(db: PgPool) {
    let mut records = interleaved(stories());
    let broken = Story::placed(99, "2026-06-01T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    records.splice(3..3, broken.records[1..].to_vec());
    let topic = InMemory::of(&records);
    let fixture = Fixture::open_with(db, &topic).await;
    fixture.kit.deliver_together(&records).await;
    fixture.request_rebuild().await.expect("none runs");
    while fixture.status().await.building.is_some() {
        fixture.rename("funnel", "gone").await;
        // Either fails, unless it has nothing to add.
        let _ = rebuild::rebuild(fixture.service.clone()).await;
        fixture.rename("gone", "funnel").await;
        fixture.unit().await;
    }
    assert_eq!(fixture.status().await.live.map(|live| live.projection_id), Some(2));
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 2).await);
    assert_eq!(topic.1.load(Ordering::Relaxed), 1, "the topic was opened once");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_rebuild_that_goes_on_failing_is_given_up_and_says_why(db: PgPool) {
    let records = interleaved(stories());
    let fixture = Fixture::open_with(db, &InMemory::of(&records)).await;
    fixture.kit.deliver_together(&records).await;
    fixture.request_rebuild().await.expect("none runs");
    fixture.rename("counted_order", "gone").await;
    let mut failures = 0;
    while fixture.status().await.building.is_some() {
        rebuild::rebuild(fixture.service.clone()).await.expect_err("a table is gone");
        failures += 1;
    }
    fixture.rename("gone", "counted_order").await;
    let status = fixture.status().await;
    assert_eq!((failures, status.live.map(|live| live.projection_id)), (60, Some(1)));
    assert!(status.rebuild_failure.contains("counted_order"), "{}", status.rebuild_failure);
    assert_eq!(fixture.unit().await, Next::AfterPause);

    assert_eq!(fixture.request_rebuild().await.expect("none runs").projection_id, 3);
    assert_eq!(fixture.status().await.rebuild_failure, "", "another one has begun");
    fixture.rebuild().await;
    let status = fixture.status().await;
    assert_eq!((status.live.map(|live| live.projection_id), &status.rebuild_failure[..]), (Some(3), ""));
    assert_eq!(rows(fixture.db(), 1).await, rows(fixture.db(), 3).await);
}
