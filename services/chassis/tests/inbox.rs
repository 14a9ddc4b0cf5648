//! Taking events in: once each, in order, and past those that cannot be handled.

use std::sync::{Arc, Mutex};

use chassis::consume::{Consumer, HandleError, Handler, Record};
use chassis::dead_letter::{self, RedriveError};
use chassis::{Clock, inbox};
use sqlx::{PgConnection, PgPool};
use testkit::record;
use uuid::Uuid;

/// Writes down what it hears, in a table of its own; what it is told to refuse it refuses.
struct Scribe {
    refused: Mutex<Vec<(Uuid, i64)>>,
}

#[tonic::async_trait]
impl Handler for Scribe {
    fn wants(&self, kind: &str) -> bool {
        kind == "souk.test.v1.Said"
    }

    async fn handle(&self, tx: &mut PgConnection, record: &Record) -> Result<(), HandleError> {
        sqlx::query("insert into heard (key, version) values ($1, $2)")
            .bind(record.key)
            .bind(record.version)
            .execute(tx)
            .await?;
        let refused = self.refused.lock().expect("no panics").contains(&(record.key, record.version));
        if refused { Err(HandleError::Poisoned("refused".to_owned())) } else { Ok(()) }
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
        let table = "create table heard (id bigint generated always as identity, key uuid, version bigint)";
        sqlx::query(table).execute(&db).await.expect("a table for the scribe");
        let scribe = Arc::new(Scribe { refused: Mutex::default() });
        let topics = &["souk.test.v1"];
        let consumer = Consumer { name: "scribe", topics, db: db.clone(), handler: scribe.clone() };
        Self { db, clock: Clock::System, scribe, consumer }
    }

    async fn hear(&self, records: &[Record]) {
        inbox::take_in(&self.consumer, &self.clock, records).await.expect("the database is there");
    }

    async fn heard(&self) -> Vec<(Uuid, i64)> {
        let rows = sqlx::query_as("select key, version from heard order by id");
        rows.fetch_all(&self.db).await.expect("the scribe's table")
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
    desk.scribe.refused.lock().expect("no panics").push((a, 2));
    desk.hear(&[said(a, 1), said(a, 2), said(b, 1), said(a, 3), said(b, 2)]).await;
    desk.hear(&[said(a, 4), said(a, 3), said(a, 1)]).await;
    assert_eq!(
        desk.heard().await,
        [(a, 1), (b, 1), (b, 2)],
        "the other key goes on, and no effect of a refused one stays"
    );
    let parked = |version| (version, "parked".to_owned());
    assert_eq!(desk.parked().await[1..], [parked(3), parked(4)][..]);

    let still = dead_letter::redrive(&desk.consumer, &desk.clock, a).await;
    assert!(matches!(still, Err(RedriveError::Failed { redriven: 0, .. })), "{still:?}");
    desk.scribe.refused.lock().expect("no panics").clear();
    assert_eq!(dead_letter::redrive(&desk.consumer, &desk.clock, a).await.expect("mended"), 3);
    desk.hear(&[said(a, 5)]).await;
    assert_eq!(desk.heard().await[3..], [(a, 2), (a, 3), (a, 4), (a, 5)][..]);
    assert_eq!(desk.parked().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn two_who_take_in_the_same_events_have_one_effect(db: PgPool) {
    let desk = Desk::open(db).await;
    let story: Vec<_> = (1..=20).map(|version| said(Uuid::from_u128(1), version)).collect();
    let take = || async {
        // The one that lost hands its records in again, as the bus does.
        while inbox::take_in(&desk.consumer, &desk.clock, &story).await.is_err() {}
    };
    tokio::join!(take(), take(), take());
    assert_eq!(desk.heard().await.len(), 20);
}
