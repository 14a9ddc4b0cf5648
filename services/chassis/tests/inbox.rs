//! Taking events in: once each, in order, and past those that cannot be handled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::Clock;
use chassis::event::dead_letter::{self, Discard, DiscardError, RedriveError};
use chassis::event::inbox;
use chassis::event::{Consumer, Due, HandleError, Handler, Record};
use sqlx::{PgConnection, PgPool};
use testkit::record;
use tokio::sync::RwLock;
use uuid::Uuid;

/// Writes down what it hears, in a table of its own that takes nothing twice. Some of it it refuses, when told to.
#[derive(Default)]
struct Scribe {
    trouble: Mutex<HashMap<(Uuid, i64), Trouble>>,
    /// It writes while this can be had.
    pen: RwLock<()>,
}

#[derive(Clone, Copy)]
enum Trouble {
    Poison,
    Panic,
    /// Gone when it is tried again.
    Passing,
}

#[tonic::async_trait]
impl Handler for Scribe {
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

impl Scribe {
    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        sqlx::query("insert into heard (key, version) values ($1, $2)")
            .bind(record.key)
            .bind(record.version)
            .execute(tx)
            .await?;
        let _pen = self.pen.read().await;
        let event = (record.key, record.version);
        let trouble = self.trouble.lock().expect("no panics").get(&event).copied();
        match trouble {
            None => Ok(()),
            Some(Trouble::Poison) => Err(HandleError::Poisoned("refused".to_owned())),
            Some(Trouble::Panic) => panic!("the scribe faints, as the test wants"),
            Some(Trouble::Passing) => {
                self.trouble.lock().expect("no panics").remove(&event);
                Err(sqlx::Error::PoolTimedOut.into())
            }
        }
    }
}

struct Desk {
    db: PgPool,
    clock: Clock,
    scribe: Arc<Scribe>,
    consumer: Consumer,
}

impl Desk {
    async fn open(db: PgPool) -> Self {
        let table = "create table heard (id bigint generated always as identity, key uuid, version bigint, unique (key, version))";
        sqlx::query(table).execute(&db).await.expect("a table for the scribe");
        let scribe = Arc::<Scribe>::default();
        let topics = &["souk.test.v1"];
        let consumer = Consumer { name: "scribe", topics, db: db.clone(), handler: scribe.clone() };
        Self { db, clock: Clock::System, scribe, consumer }
    }

    fn trouble(&self, key: Uuid, version: i64, trouble: Trouble) {
        self.scribe.trouble.lock().expect("no panics").insert((key, version), trouble);
    }

    async fn hear(&self, records: &[Record]) {
        inbox::take_in(&self.consumer, &self.clock, records).await.expect("the database is there");
    }

    async fn heard(&self) -> Vec<(Uuid, i64)> {
        let rows = sqlx::query_as("select key, version from heard order by id");
        rows.fetch_all(&self.db).await.expect("the scribe's table")
    }

    /// Until somebody has the advisory lock of a key, and so many wait for one.
    async fn waits_for_a_lock(&self, waiting: i64) {
        let sql = "select count(*) filter (where granted), count(*) filter (where not granted) from pg_locks
                   where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";
        let seen = async {
            while sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&self.db).await.expect("locks") != (1, waiting) {}
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the lock is asked for");
    }

    /// Discards letters that stand under `of`, by their versions, as letters of `key`.
    async fn discard(&self, key: Uuid, of: Uuid, versions: &[i64]) -> Result<(), DiscardError> {
        let letters = dead_letter::list(&self.db, Some("scribe"), 0, 100).await.expect("letters");
        let named = letters.into_iter().filter(|it| it.record.key == of && versions.contains(&it.record.version));
        let ids: Vec<_> = named.map(|letter| letter.id).collect();
        let what = Discard { consumer: "scribe", key, ids: &ids, reason: "not needed", actor: "operator:somebody" };
        dead_letter::discard(&self.db, &self.clock, what).await
    }

    async fn parked(&self) -> Vec<(i64, String)> {
        let letters = dead_letter::list(&self.db, Some("scribe"), 0, 100).await.expect("letters");
        letters.into_iter().map(|letter| (letter.record.version, letter.error)).collect()
    }
}

fn said(key: Uuid, version: i64) -> Record {
    record("souk.test.v1.Said", key, version, vec![])
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn each_event_takes_effect_once_and_in_order(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let story = [said(a, 1), said(b, 1), said(a, 2), said(a, 2), said(b, 1), said(b, 3)];
    desk.hear(&story).await;
    desk.hear(&story).await;
    desk.hear(&story[..1]).await;
    assert_eq!(desk.heard().await, [(a, 1), (b, 1), (a, 2), (b, 3)]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn what_nobody_wants_is_skipped(db: PgPool) {
    let desk = Desk::open(db).await;
    desk.hear(&[record("souk.test.v1.Sung", Uuid::from_u128(1), 1, vec![])]).await;
    assert_eq!(desk.heard().await, []);
    let touched: i64 = sqlx::query_scalar("select count(*) from inbox").fetch_one(&desk.db).await.expect("a count");
    assert_eq!(touched, 0);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_poisoned_event_parks_its_key_only_until_it_is_redriven(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    desk.trouble(a, 2, Trouble::Poison);
    desk.hear(&[said(a, 1), said(a, 2), said(b, 1), said(a, 3), said(b, 2)]).await;
    desk.hear(&[said(a, 4), said(a, 3), said(a, 1)]).await;
    assert_eq!(
        desk.heard().await,
        [(a, 1), (b, 1), (b, 2)],
        "the other key goes on, and no effect of a refused one stays"
    );
    let parked = |version| (version, "parked".to_owned());
    assert_eq!(desk.parked().await, [(2, "refused".to_owned()), parked(3), parked(4)]);
    desk.hear(&[said(a, 2), said(a, 3), said(a, 4)]).await;
    assert_eq!(desk.parked().await.len(), 3, "repeats of dead letters are repeats");

    let still = dead_letter::redrive(&desk.consumer, &desk.clock, a).await;
    assert!(matches!(still, Err(RedriveError::Failed { redriven: 0, .. })), "{still:?}");
    desk.scribe.trouble.lock().expect("no panics").clear();
    assert_eq!(dead_letter::redrive(&desk.consumer, &desk.clock, a).await.expect("mended"), 3);
    desk.hear(&[said(a, 5)]).await;
    assert_eq!(desk.heard().await[3..], [(a, 2), (a, 3), (a, 4), (a, 5)][..]);
    assert_eq!(desk.parked().await, []);
}

/// The one that lost hands its records in again, as the bus does.
async fn insist(desk: &Desk, records: &[Record]) {
    let begun = Instant::now();
    while let Err(error) = inbox::take_in(&desk.consumer, &desk.clock, records).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "still {error:?}");
    }
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn two_who_take_in_the_same_events_have_one_effect(db: PgPool) {
    let desk = Desk::open(db).await;
    let story: Vec<_> = (1..=20).map(|version| said(Uuid::from_u128(1), version)).collect();
    tokio::join!(insist(&desk, &story), insist(&desk, &story), insist(&desk, &story));
    assert_eq!(desk.heard().await.len(), 20);
    assert_eq!(desk.parked().await, [], "to meet somebody at the same work is no failure");
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn one_event_after_the_other_by_two_at_once_has_one_effect_each(db: PgPool) {
    let desk = Desk::open(db).await;
    for version in 1..=30 {
        // One alone never shares a transaction, so whatever its handler says would be its end.
        let event = [said(Uuid::from_u128(1), version)];
        tokio::join!(insist(&desk, &event), insist(&desk, &event), insist(&desk, &event));
    }
    assert_eq!(desk.heard().await.len(), 30);
    assert_eq!(desk.parked().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_handler_that_panics_loses_one_event_and_no_more(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    desk.trouble(a, 1, Trouble::Panic);
    desk.hear(&[said(a, 1), said(b, 1)]).await;
    assert_eq!(desk.heard().await, [(b, 1)]);
    assert_eq!(desk.parked().await, [(1, "the handler panicked".to_owned())]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_failure_that_will_pass_parks_nothing_and_keeps_what_came_before(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let story = [said(a, 1), said(b, 1), said(a, 2)];
    // Once for all together, once for this one alone.
    desk.trouble(b, 1, Trouble::Passing);
    let alone = &story[1..2];
    inbox::take_in(&desk.consumer, &desk.clock, alone).await.expect_err("it passes, but not yet");
    desk.hear(&story).await;
    assert_eq!(desk.heard().await, [(a, 1), (b, 1), (a, 2)]);
    assert_eq!(desk.parked().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn an_event_that_comes_while_its_key_is_redriven_stays_behind(db: PgPool) {
    let desk = Desk::open(db).await;
    let a = Uuid::from_u128(1);
    desk.trouble(a, 1, Trouble::Poison);
    desk.hear(&[said(a, 1), said(a, 2)]).await;
    desk.scribe.trouble.lock().expect("no panics").clear();

    let pen = desk.scribe.pen.write().await;
    let redrive = dead_letter::redrive(&desk.consumer, &desk.clock, a);
    let (third, fourth) = ([said(a, 3)], [said(a, 4)]);
    let late = async {
        desk.waits_for_a_lock(0).await;
        tokio::join!(desk.hear(&third), async {
            desk.waits_for_a_lock(1).await;
            drop(pen);
        });
        desk.hear(&fourth).await;
    };
    let (redriven, ()) = tokio::join!(redrive, late);
    assert!(redriven.expect("mended") >= 2);
    // What came after the last letter was gone went the usual way, what came before was redriven with it.
    dead_letter::redrive(&desk.consumer, &desk.clock, a).await.expect("nothing is left, or what came in between");
    assert_eq!(desk.heard().await, [(a, 1), (a, 2), (a, 3), (a, 4)]);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn what_stands_behind_a_discarded_event_is_redriven_in_order_and_the_key_is_free(db: PgPool) {
    let desk = Desk::open(db).await;
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    desk.trouble(a, 1, Trouble::Poison);
    // Here a record's version is its offset, too, and no two are at one.
    desk.trouble(b, 8, Trouble::Poison);
    desk.hear(&[said(a, 1), said(a, 2), said(a, 3), said(b, 8)]).await;

    let others = desk.discard(b, a, &[2]).await.expect_err("it is another key's");
    assert!(matches!(others, DiscardError::Missing { found: 0, wanted: 1 }), "{others:?}");
    assert_eq!(desk.parked().await.len(), 4, "all or none");
    desk.discard(a, a, &[1, 2, 3]).await.expect("they are there");
    let audit = "select dead_letter_id, version, error, reason, discarded_by from dead_letter_discard order by version";
    let audit: Vec<(i64, i64, String, String, String)> =
        sqlx::query_as(audit).fetch_all(&desk.db).await.expect("the audit trail");
    let said_of = |at: usize| (audit[at].1, audit[at].2.as_str(), audit[at].3.as_str(), audit[at].4.as_str());
    assert_eq!(audit.len(), 3);
    assert_eq!(said_of(0), (1, "refused", "not needed", "operator:somebody"));
    assert_eq!(said_of(1), (2, "parked", "not needed", "operator:somebody"));

    // The key is free: what comes now is handled, and what was discarded does not come back.
    desk.hear(&[said(a, 1), said(a, 2), said(a, 4)]).await;
    assert_eq!(desk.heard().await, [(a, 4)]);

    desk.trouble(a, 5, Trouble::Poison);
    desk.hear(&[said(a, 5), said(a, 6), said(a, 7)]).await;
    desk.discard(a, a, &[5]).await.expect("it is there");
    assert_eq!(dead_letter::redrive(&desk.consumer, &desk.clock, a).await.expect("nothing is wrong with them"), 2);
    assert_eq!(desk.heard().await, [(a, 4), (a, 6), (a, 7)]);
}
