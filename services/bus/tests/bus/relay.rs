//! Publishing: from the outbox to the topic.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use chassis::Wake;
use chassis::event::Record;
use chassis::event::outbox::Outbox;
use chassis::event::relay;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use uuid::Uuid;

use crate::harness::{Harness, Running, SAID, brokers, eventually, service_metric};

fn relay(harness: &Harness, service: &'static str) -> Running {
    let (outbox, producer) = (harness.outbox.clone(), harness.producer.clone());
    Running::start(|stop| relay::publish(outbox, service, bus::sender(producer, service), stop))
}

/// The versions without duplicates. One that came after a higher one is left out.
fn firsts(records: &[Record]) -> Vec<i64> {
    let mut firsts = Vec::new();
    for record in records {
        if firsts.last().is_none_or(|last| record.version > *last) {
            firsts.push(record.version);
        }
    }
    firsts
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn an_event_is_published_if_and_only_if_its_transaction_committed(db: PgPool) {
    let harness = Harness::new(db).await;
    let relay = relay(&harness, "iff");
    let mut committed = BTreeMap::<Uuid, Vec<i64>>::new();
    for round in 0..120_u128 {
        let key = Uuid::from_u128(round % 7);
        let (tx, version) = harness.change(key).await;
        if round % 3 == 0 {
            tx.rollback().await.expect("the database is there");
        } else {
            tx.commit().await.expect("the database is there");
            harness.outbox.wake.wake();
            committed.entry(key).or_default().push(version);
        }
    }
    harness.published().await;
    relay.stop().await;
    let read = harness.read().await;
    let versions = read.iter().map(|(key, records)| (*key, records.iter().map(|it| it.version).collect())).collect();
    assert_eq!(committed, versions);

    let one = &read[&Uuid::from_u128(1)][0];
    assert_eq!((one.event_type.as_str(), one.actor.as_str()), (SAID, "service:test"));
    assert_eq!((one.payload.as_slice(), one.causation_id), (&1_i64.to_be_bytes()[..], Some(Uuid::from_u128(7))));
}

/// Twenty seconds are many ticks, in which the low-water mark could pass the open transaction.
#[sqlx::test(migrations = "../../migrations/order")]
async fn an_open_transaction_delays_no_other_event_and_loses_none(db: PgPool) {
    let harness = Harness::new(db).await;
    let relay = relay(&harness, "late");
    let (late, early) = (Uuid::from_u128(1), Uuid::from_u128(2));
    harness.commit(early).await;
    harness.published().await;
    let (tx, _) = harness.change(late).await;
    let (begun, mut waits, mut rounds) = (Instant::now(), vec![], 1);
    while begun.elapsed() < Duration::from_secs(20) {
        let committed = Instant::now();
        harness.commit(early).await;
        harness.published().await;
        waits.push(committed.elapsed());
        rounds += 1;
    }
    // If events waited for the transaction, or for a tick, each would take longer. A slow machine delays some.
    waits.sort();
    let most = waits[waits.len() * 9 / 10];
    assert!(most < Duration::from_millis(900), "a tenth of the events took {most:?} or longer");
    tx.commit().await.expect("the database is there");
    harness.commit(late).await;
    harness.published().await;
    relay.stop().await;
    let read = harness.read().await;
    assert_eq!(firsts(&read[&late]), [1, 2]);
    assert_eq!(firsts(&read[&early]), (1..=rounds).collect::<Vec<_>>());
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_commit_of_another_replica_wakes_the_leader(db: PgPool) {
    let harness = Harness::new(db).await;
    let leader = relay(&harness, "leader");
    eventually("a leader", async || (service_metric("outbox_leader", "leader") > 0.0).then_some(())).await;
    let other = Harness { outbox: Outbox { db: harness.db.clone(), wake: Wake::default(), changed: None }, ..harness };
    let follower = relay(&other, "follower");
    let mut waits = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        other.commit(Uuid::from_u128(1)).await;
        other.published().await;
        waits.push(begun.elapsed());
    }
    // Without the wake-up each would wait a whole second for the next tick, because it begins right after one.
    waits.sort();
    assert!(waits[10] < Duration::from_millis(500), "{waits:?}");
    assert_eq!(service_metric("outbox_published_total", "follower"), 0.0);
    follower.stop().await;
    leader.stop().await;
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_relay_whose_broker_is_away_stops_in_time_and_keeps_its_events(db: PgPool) {
    let harness = Harness::new(db).await;
    // Nothing listens there.
    let producer = bus::producer(&bus::Brokers::plain("127.0.0.1:1")).expect("the settings are right");
    let outbox = harness.outbox.clone();
    let relay = Running::start(|stop| relay::publish(outbox, "away", bus::sender(producer, "away"), stop));
    harness.commit(Uuid::from_u128(1)).await;
    eventually("a pending event", async || (service_metric("outbox_pending", "away") > 0.0).then_some(())).await;
    relay.stop().await;
    let left: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&harness.db).await.expect("a count");
    assert_eq!(left, 1);
}

/// The broker, or already the client, refuses a message that is too large, until the row is corrected.
#[sqlx::test(migrations = "../../migrations/order")]
async fn the_events_after_a_refused_one_of_their_key_wait(db: PgPool) {
    const TOO_LARGE: i32 = 2_000_000;
    let harness = Harness::new(db).await;
    let (key, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let (mut tx, _) = harness.change(key).await;
    let enlarge = sqlx::query("update outbox set payload = convert_to(repeat('x', $1), 'UTF8')").bind(TOO_LARGE);
    enlarge.execute(&mut *tx).await.expect("the row is there");
    tx.commit().await.expect("the database is there");
    harness.commit(key).await;
    harness.commit(other).await;
    let relay = relay(&harness, "refused");
    eventually("the other key's event", async || {
        (service_metric("outbox_published_total", "refused") > 0.0).then_some(())
    })
    .await;
    // The next round tries the first event again.
    let refused = service_metric("outbox_refused_total", "refused");
    eventually("another round", async || (service_metric("outbox_refused_total", "refused") > refused).then_some(()))
        .await;
    assert_eq!(
        service_metric("outbox_published_total", "refused"),
        1.0,
        "the second event must not overtake the first"
    );

    let correct = sqlx::query("update outbox set payload = 'corrected' where length(payload) = $1").bind(TOO_LARGE);
    assert_eq!(correct.execute(&harness.db).await.expect("the database is there").rows_affected(), 1);
    harness.published().await;
    relay.stop().await;
    assert_eq!(firsts(&harness.read().await[&key]), [1, 2]);
}

/// A relay in its own process, so that it can be killed and frozen.
struct Process(Child);

impl Process {
    fn start(harness: &Harness, name: &str) -> Self {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "relay::the_process_of_a_relay", "--nocapture"])
            .env("SOUK_TEST_RELAY_OF", harness.db.connect_options().to_url_lossy().as_str())
            .env("PGAPPNAME", name)
            .spawn();
        Self(child.expect("this test can be run"))
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.send(Signal::KILL);
        self.0.wait().expect("it is our child");
    }
}

/// Not a test: [`Process`] runs it. Without its variable it does nothing.
#[tokio::test]
async fn the_process_of_a_relay() {
    let Ok(url) = std::env::var("SOUK_TEST_RELAY_OF") else { return };
    let options: PgConnectOptions = url.parse().expect("a URL");
    let db = PgPoolOptions::new().max_connections(3).connect_lazy_with(options);
    let producer = bus::producer(&brokers()).expect("the settings are right");
    let outbox = Outbox { db, wake: Wake::default(), changed: None };
    relay::publish(outbox, "process", bus::sender(producer, "process"), Default::default()).await;
}

async fn leader(harness: &Harness, other_than: &str) -> String {
    eventually("a leader", async || {
        let name = sqlx::query_scalar::<_, String>(
            "select application_name from pg_locks join pg_stat_activity using (pid)
             where locktype = 'advisory' and granted and datname = current_database()",
        );
        let name = name.fetch_optional(&harness.db).await.expect("locks")?;
        (name != other_than).then_some(name)
    })
    .await
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn events_stay_in_order_while_leaders_are_killed_and_frozen(db: PgPool) {
    let harness = Harness::new(db).await;
    let write = async |writer: u128, stop: &std::cell::Cell<bool>| {
        let mut round = writer;
        while !stop.get() {
            round += 1;
            let (tx, _) = harness.change(Uuid::from_u128(round % 5)).await;
            if round.is_multiple_of(11) { tx.rollback().await } else { tx.commit().await }
                .expect("the database is there");
        }
    };
    let stop = std::cell::Cell::new(false);
    let faults = async {
        let mut processes: BTreeMap<String, Process> =
            ["a", "b"].map(|name| (name.to_owned(), Process::start(&harness, name))).into();
        for round in 0..4 {
            let leads = leader(&harness, "").await;
            let process = processes.remove(&leads).expect("one of ours leads");
            if round % 2 == 0 {
                // Killed: drops the process.
                drop(process);
                leader(&harness, &leads).await;
            } else {
                process.send(Signal::STOP);
                leader(&harness, &leads).await;
                process.send(Signal::CONT);
            }
            let name = format!("{leads}{round}");
            processes.insert(name.clone(), Process::start(&harness, &name));
        }
        stop.set(true);
        harness.published().await;
    };
    tokio::join!(faults, write(0, &stop), write(1, &stop), write(2, &stop), write(3, &stop));

    let aggregates = sqlx::query_as::<_, (Uuid, i64)>("select key, version from aggregate");
    let read = harness.read().await;
    for (key, version) in aggregates.fetch_all(&harness.db).await.expect("the aggregates") {
        let expected: Vec<_> = (1..=version).collect();
        assert_eq!(firsts(&read[&key]), expected, "{key}");
    }
}
