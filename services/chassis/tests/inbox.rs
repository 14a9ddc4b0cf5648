//! Consuming events: once each, in order, and past those that cannot be handled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::Clock;
use chassis::event::dead_letter::{self, Discard, DiscardError, RedriveError};
use chassis::event::inbox;
use chassis::event::{Consumer, Due, HandleError, Handler, Record};
use sqlx::{PgConnection, PgPool};
use testkit::{Log, record};
use tokio::sync::RwLock;
use uuid::Uuid;

/// Inserts every event into a table that accepts none twice. It fails for those in `failures`.
#[derive(Default)]
struct TestHandler {
    failures: Mutex<HashMap<(Uuid, i64), Failure>>,
    /// While a test holds it for writing, no event is handled.
    pause: RwLock<()>,
}

#[derive(Clone, Copy)]
enum Failure {
    Poison,
    Panic,
    /// The next attempt succeeds.
    Transient,
}

#[tonic::async_trait]
impl Handler for TestHandler {
    fn wants(&self, event_type: &str) -> bool {
        event_type == "souk.test.v1.Said"
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
        sqlx::query("insert into handled (key, version) values ($1, $2)")
            .bind(record.key)
            .bind(record.version)
            .execute(tx)
            .await?;
        let _paused = self.pause.read().await;
        let event = (record.key, record.version);
        let failure = self.failures.lock().expect("no panics").get(&event).copied();
        match failure {
            None => Ok(()),
            Some(Failure::Poison) => Err(HandleError::Poisoned("refused".to_owned())),
            Some(Failure::Panic) => panic!("the handler panics, as the test wants"),
            Some(Failure::Transient) => {
                self.failures.lock().expect("no panics").remove(&event);
                Err(sqlx::Error::PoolTimedOut.into())
            }
        }
    }
}

struct Fixture {
    db: PgPool,
    clock: Clock,
    handler: Arc<TestHandler>,
    consumer: Consumer,
}

impl Fixture {
    async fn new(db: PgPool) -> Self {
        let table = "create table handled (id bigint generated always as identity, key uuid, version bigint, unique (key, version))";
        sqlx::query(table).execute(&db).await.expect("a table for the handler");
        let handler = Arc::<TestHandler>::default();
        let topics = &["souk.test.v1"];
        let consumer = Consumer { name: "test", topics, db: db.clone(), handler: handler.clone() };
        Self { db, clock: Clock::System, handler, consumer }
    }

    fn fail(&self, key: Uuid, version: i64, failure: Failure) {
        self.handler.failures.lock().expect("no panics").insert((key, version), failure);
    }

    async fn consume(&self, records: &[Record]) {
        inbox::consume(&self.consumer, &self.clock, records).await.expect("the database is there");
    }

    async fn handled(&self) -> Vec<(Uuid, i64)> {
        let rows = sqlx::query_as("select key, version from handled order by id");
        rows.fetch_all(&self.db).await.expect("the handler's table")
    }

    /// Waits until one session holds the advisory lock of a key, and `waiting` sessions wait for one.
    async fn waits_for_a_lock(&self, waiting: i64) {
        let sql = "select count(*) filter (where granted), count(*) filter (where not granted) from pg_locks
                   where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";
        let seen = async {
            while sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&self.db).await.expect("locks") != (1, waiting) {}
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the lock is waited for");
    }

    /// Discards dead letters of the key `of`, by their versions, in a request that names `key`.
    async fn discard(&self, key: Uuid, of: Uuid, versions: &[i64]) -> Result<(), DiscardError> {
        let letters = dead_letter::list(&self.db, Some("test"), 0, 100).await.expect("letters");
        let named = letters.into_iter().filter(|it| it.record.key == of && versions.contains(&it.record.version));
        let ids: Vec<_> = named.map(|letter| letter.id).collect();
        let what = Discard { consumer: "test", key, ids: &ids, reason: "not needed", actor: "operator:olga" };
        dead_letter::discard(&self.db, &self.clock, what).await
    }

    async fn parked(&self) -> Vec<(i64, String)> {
        let letters = dead_letter::list(&self.db, Some("test"), 0, 100).await.expect("letters");
        letters.into_iter().map(|letter| (letter.record.version, letter.error)).collect()
    }
}

fn said(key: Uuid, version: i64) -> Record {
    record("souk.test.v1.Said", key, version, vec![])
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn each_event_takes_effect_once_and_in_order(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let records = [said(a, 1), said(b, 1), said(a, 2), said(a, 2), said(b, 1), said(b, 3)];
    fixture.consume(&records).await;
    fixture.consume(&records).await;
    fixture.consume(&records[..1]).await;
    assert_eq!(fixture.handled().await, [(a, 1), (b, 1), (a, 2), (b, 3)]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn unwanted_event_types_are_skipped(db: PgPool) {
    let fixture = Fixture::new(db).await;
    fixture.consume(&[record("souk.test.v1.Sung", Uuid::from_u128(1), 1, vec![])]).await;
    assert_eq!(fixture.handled().await, []);
    let touched: i64 = sqlx::query_scalar("select count(*) from inbox").fetch_one(&fixture.db).await.expect("a count");
    assert_eq!(touched, 0);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_poisoned_event_parks_its_key_only_until_it_is_redriven(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    fixture.fail(a, 2, Failure::Poison);
    fixture.consume(&[said(a, 1), said(a, 2), said(b, 1), said(a, 3), said(b, 2)]).await;
    fixture.consume(&[said(a, 4), said(a, 3), said(a, 1)]).await;
    assert_eq!(
        fixture.handled().await,
        [(a, 1), (b, 1), (b, 2)],
        "the other key continues, and no effect of the refused one stays"
    );
    let parked = |version| (version, "parked".to_owned());
    assert_eq!(fixture.parked().await, [(2, "refused".to_owned()), parked(3), parked(4)]);
    fixture.consume(&[said(a, 2), said(a, 3), said(a, 4)]).await;
    assert_eq!(fixture.parked().await.len(), 3, "repeats of dead letters are repeats");

    let log = Log::keep();
    let still = dead_letter::redrive(&fixture.consumer, a, "operator:olga").await;
    assert!(matches!(still, Err(RedriveError::Failed { redriven: 0, .. })), "{still:?}");
    assert!(log.find("failed again")[0].contains("operator:olga"), "who tried it is in the log");
    fixture.handler.failures.lock().expect("no panics").clear();
    assert_eq!(dead_letter::redrive(&fixture.consumer, a, "operator:olga").await.expect("mended"), 3);
    assert!(log.find("the key is unparked")[0].contains("operator:olga"), "who did it is in the log");
    fixture.consume(&[said(a, 5)]).await;
    assert_eq!(fixture.handled().await[3..], [(a, 2), (a, 3), (a, 4), (a, 5)][..]);
    assert_eq!(fixture.parked().await, []);
}

/// Retries until it succeeds, as the bus does.
async fn consume_with_retry(fixture: &Fixture, records: &[Record]) {
    let begun = Instant::now();
    while let Err(error) = inbox::consume(&fixture.consumer, &fixture.clock, records).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "still {error:?}");
    }
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn events_consumed_by_two_at_once_take_effect_once(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let records: Vec<_> = (1..=20).map(|version| said(Uuid::from_u128(1), version)).collect();
    tokio::join!(
        consume_with_retry(&fixture, &records),
        consume_with_retry(&fixture, &records),
        consume_with_retry(&fixture, &records)
    );
    assert_eq!(fixture.handled().await.len(), 20);
    assert_eq!(fixture.parked().await, [], "a conflict with another consumer is no failure");
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn single_events_consumed_by_two_at_once_take_effect_once(db: PgPool) {
    let fixture = Fixture::new(db).await;
    for version in 1..=30 {
        // A single event shares no transaction, so an error of its handler would park it at once.
        let event = [said(Uuid::from_u128(1), version)];
        tokio::join!(
            consume_with_retry(&fixture, &event),
            consume_with_retry(&fixture, &event),
            consume_with_retry(&fixture, &event)
        );
    }
    assert_eq!(fixture.handled().await.len(), 30);
    assert_eq!(fixture.parked().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_handler_that_panics_loses_one_event_and_no_more(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    fixture.fail(a, 1, Failure::Panic);
    fixture.consume(&[said(a, 1), said(b, 1)]).await;
    assert_eq!(fixture.handled().await, [(b, 1)]);
    assert_eq!(fixture.parked().await, [(1, "the handler panicked".to_owned())]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_transient_failure_parks_nothing_and_keeps_what_was_handled_before(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let records = [said(a, 1), said(b, 1), said(a, 2)];
    // First for this event alone, then for the whole batch.
    fixture.fail(b, 1, Failure::Transient);
    let alone = &records[1..2];
    inbox::consume(&fixture.consumer, &fixture.clock, alone).await.expect_err("the first attempt fails");
    fixture.consume(&records).await;
    assert_eq!(fixture.handled().await, [(a, 1), (b, 1), (a, 2)]);
    assert_eq!(fixture.parked().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn an_event_that_comes_while_its_key_is_redriven_stays_behind(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let a = Uuid::from_u128(1);
    fixture.fail(a, 1, Failure::Poison);
    fixture.consume(&[said(a, 1), said(a, 2)]).await;
    fixture.handler.failures.lock().expect("no panics").clear();

    let paused = fixture.handler.pause.write().await;
    let redrive = dead_letter::redrive(&fixture.consumer, a, "operator:olga");
    let (third, fourth) = ([said(a, 3)], [said(a, 4)]);
    let late = async {
        fixture.waits_for_a_lock(0).await;
        tokio::join!(fixture.consume(&third), async {
            fixture.waits_for_a_lock(1).await;
            drop(paused);
        });
        fixture.consume(&fourth).await;
    };
    let (redriven, ()) = tokio::join!(redrive, late);
    assert!(redriven.expect("mended") >= 2);
    // An event that came before the key was free was parked and redriven, a later one was handled as usual.
    dead_letter::redrive(&fixture.consumer, a, "operator:olga").await.expect("nothing, or one event, is left");
    assert_eq!(fixture.handled().await, [(a, 1), (a, 2), (a, 3), (a, 4)]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn events_after_a_discarded_one_are_redriven_in_order_and_the_key_is_unparked(db: PgPool) {
    let fixture = Fixture::new(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    fixture.fail(a, 1, Failure::Poison);
    // Here a record's version is its offset, too, and no two share an offset.
    fixture.fail(b, 8, Failure::Poison);
    fixture.consume(&[said(a, 1), said(a, 2), said(a, 3), said(b, 8)]).await;

    let others = fixture.discard(b, a, &[2]).await.expect_err("it is another key's");
    assert!(matches!(others, DiscardError::Missing { found: 0, wanted: 1 }), "{others:?}");
    assert_eq!(fixture.parked().await.len(), 4, "all or none");
    fixture.discard(a, a, &[1, 2, 3]).await.expect("they are there");
    let audit = "select dead_letter_id, version, error, reason, discarded_by from dead_letter_discard order by version";
    let audit: Vec<(i64, i64, String, String, String)> =
        sqlx::query_as(audit).fetch_all(&fixture.db).await.expect("the audit trail");
    let columns = |at: usize| (audit[at].1, audit[at].2.as_str(), audit[at].3.as_str(), audit[at].4.as_str());
    assert_eq!(audit.len(), 3);
    assert_eq!(columns(0), (1, "refused", "not needed", "operator:olga"));
    assert_eq!(columns(1), (2, "parked", "not needed", "operator:olga"));

    // The key is free: what comes now is handled, and what was discarded does not come back.
    fixture.consume(&[said(a, 1), said(a, 2), said(a, 4)]).await;
    assert_eq!(fixture.handled().await, [(a, 4)]);

    fixture.fail(a, 5, Failure::Poison);
    fixture.consume(&[said(a, 5), said(a, 6), said(a, 7)]).await;
    fixture.discard(a, a, &[5]).await.expect("it is there");
    assert_eq!(
        dead_letter::redrive(&fixture.consumer, a, "operator:olga").await.expect("nothing is wrong with them"),
        2
    );
    assert_eq!(fixture.handled().await, [(a, 4), (a, 6), (a, 7)]);
}
