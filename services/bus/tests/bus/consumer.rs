//! Consuming: from the topic to the effect.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::Clock;
use chassis::event::Consumer;
use chassis::event::dead_letter::{self, Discard, RedriveError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::harness::{Harness, address, brokers, consumer_metric, eventually};

fn keys(count: u128) -> Vec<Uuid> {
    (1..=count).map(Uuid::from_u128).collect()
}

fn versions(keys: &[Uuid], last: i64) -> BTreeMap<Uuid, Vec<i64>> {
    keys.iter().map(|key| (*key, (1..=last).collect())).collect()
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn duplicates_take_effect_once(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(5));
    let running = test.start();
    for version in 1..=20 {
        for key in &keys {
            harness.send(*key, version).await;
            harness.send(*key, version).await;
        }
        harness.send(keys[0], 1).await;
    }
    harness.wait_for_handled(100).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, 20));
}

/// Those that wait already, and those that come while it waits for more.
#[sqlx::test(migrations = "../../migrations/order")]
async fn events_that_are_gathered_are_handled_like_others(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(5));
    *test.handler.gathers_for.lock().expect("no panics") = Duration::from_millis(250);
    for key in &keys {
        harness.send(*key, 1).await;
    }
    let running = test.start();
    harness.wait_for_handled(5).await;
    for version in 2..=10 {
        for key in &keys {
            harness.send(*key, version).await;
        }
    }
    harness.wait_for_handled(50).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, 10));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn reading_everything_again_changes_nothing(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(8));
    for version in 1..=20 {
        for key in &keys {
            harness.send(*key, version).await;
        }
    }
    let running = test.start();
    harness.wait_for_handled(160).await;
    running.stop().await;

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address()).create().expect("the settings are right");
    let deleted = admin.delete_groups(&[test.consumer.name], &AdminOptions::new()).await.expect("a response");
    assert!(deleted[0].is_ok(), "{deleted:?}");

    let running = test.start();
    // After everything else, in every partition that has events.
    for key in &keys {
        harness.send(*key, 21).await;
    }
    harness.wait_for_handled(168).await;
    running.stop().await;
    assert!(consumer_metric("events_repeated_total", test.consumer.name) >= 160.0);
    assert_eq!(harness.handled().await, versions(&keys, 21));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_poisoned_event_parks_its_key_only_until_it_is_redriven(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(12));
    let poisoned = keys[3];
    test.handler.refused.lock().expect("no panics").push((poisoned, 3));
    let running = test.start();
    for version in 1..=10 {
        for key in &keys {
            harness.send(*key, version).await;
        }
    }
    harness.wait_for_handled(11 * 10 + 2).await;
    let letters = eventually("all letters", async || Some(test.dead_letters().await).filter(|it| it.len() == 8)).await;
    assert_eq!(letters[0], (poisoned, 3, "refused".to_owned()));
    assert_eq!(letters[7], (poisoned, 10, "parked".to_owned()));
    assert_eq!(harness.handled().await[&poisoned], [1, 2]);

    test.handler.refused.lock().expect("no panics").clear();
    let redriven = dead_letter::redrive(&test.consumer, poisoned, "operator:olga").await;
    assert_eq!(redriven.expect("the handler succeeds now"), 8);
    harness.send(poisoned, 11).await;
    harness.wait_for_handled(121).await;
    running.stop().await;
    let mut expected = versions(&keys, 10);
    expected.insert(poisoned, (1..=11).collect());
    assert_eq!(harness.handled().await, expected);
    assert_eq!(test.dead_letters().await, []);
}

/// A bug is fixed and the keys that it parked are redriven, while further events of them arrive.
#[sqlx::test(migrations = "../../migrations/order")]
async fn parked_keys_are_redriven_in_order_while_events_arrive(db: PgPool) {
    const LAST: i64 = 60;
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(6));
    let parked = &keys[..3];
    test.handler.refused.lock().expect("no panics").extend(parked.iter().map(|key| (*key, 3)));
    let running = test.start();
    let writer = async {
        for version in 1..=LAST {
            for key in &keys {
                harness.send(*key, version).await;
            }
        }
    };
    let operator = async {
        eventually("three parked keys", async || {
            let letters = test.dead_letters().await;
            parked.iter().all(|key| letters.iter().any(|letter| letter.0 == *key)).then_some(())
        })
        .await;
        test.handler.refused.lock().expect("no panics").clear();
        for key in parked {
            let redriven = dead_letter::redrive(&test.consumer, *key, "operator:olga").await;
            assert!(redriven.expect("the handler succeeds now") > 0);
        }
    };
    tokio::join!(writer, operator);
    harness.wait_for_handled(6 * LAST).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, LAST));
    assert_eq!(test.dead_letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn an_unreadable_record_blocks_no_event(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, key) = (harness.consumer(), Uuid::from_u128(1));
    harness.send(key, 1).await;
    harness.send_unreadable(key).await;
    harness.send(key, 2).await;
    let running = test.start();
    harness.wait_for_handled(2).await;
    running.stop().await;
    let missing = "the header ce_type is missing or malformed".to_owned();
    assert_eq!(test.dead_letters().await, [(Uuid::nil(), 0, missing)]);
    assert_eq!(consumer_metric("events_unreadable_total", test.consumer.name), 1.0);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn an_unreadable_record_is_never_redriven_and_stays_discarded(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, key) = (harness.consumer(), Uuid::from_u128(1));
    harness.send_unreadable(key).await;
    let running = test.start();
    let letter = eventually("the dead letter", async || {
        let letters = dead_letter::list(&harness.db, None, 0, 10).await.expect("letters");
        letters.into_iter().next()
    })
    .await;
    running.stop().await;
    let redriven = dead_letter::redrive(&test.consumer, Uuid::nil(), "operator:olga").await;
    assert!(matches!(redriven, Err(RedriveError::Unreadable)), "{redriven:?}");
    assert_eq!(test.dead_letters().await.len(), 1, "it is still there");

    let Consumer { name, db, .. } = &test.consumer;
    let what =
        Discard { consumer: name, key: Uuid::nil(), ids: &[letter.id], reason: "unreadable", actor: "operator:x" };
    dead_letter::discard(db, &Clock::System, what).await.expect("it is there");
    // As after a crash before the offset was stored.
    let mut db = db.acquire().await.expect("the database is there");
    dead_letter::insert(&mut db, name, &Clock::System, &letter.record, "again").await.expect("a repeat");
    assert_eq!(test.dead_letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn events_wait_while_the_database_is_away(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(8));
    let running = test.start();
    for key in &keys {
        harness.send(*key, 1).await;
    }
    harness.wait_for_handled(8).await;

    let options = harness.db.connect_options();
    let name = options.get_database().expect("the test has a database").to_owned();
    let mut server =
        PgConnection::connect_with(&options.as_ref().clone().database("postgres")).await.expect("a server");
    let allow = async |server: &mut PgConnection, whether: &str| {
        let sql = format!("alter database \"{name}\" allow_connections {whether}");
        sqlx::query(AssertSqlSafe(sql)).execute(server).await.expect("an administrator");
    };
    allow(&mut server, "false").await;
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    sqlx::query(sql).bind(&name).execute(&mut server).await.expect("an administrator");
    for version in 2..=10 {
        for key in &keys {
            harness.send(*key, version).await;
        }
    }
    let retried = || consumer_metric("events_retried_total", test.consumer.name) >= 8.0;
    eventually("a retry of each partition", async || retried().then_some(())).await;
    allow(&mut server, "true").await;

    harness.wait_for_handled(80).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, 10));
    assert_eq!(test.dead_letters().await, []);
}

/// As in a process that stops and loses its database in the middle of a transaction.
#[sqlx::test(migrations = "../../migrations/order")]
async fn an_event_whose_transaction_was_lost_is_read_again(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, key) = (harness.consumer(), Uuid::from_u128(1));
    let lock = test.handler.key_lock(key);
    let locked = lock.write().await;
    let running = test.start();
    harness.send(key, 1).await;
    let session = eventually("the open transaction", async || {
        let sql = "select pid from pg_stat_activity where datname = current_database()
                     and state = 'idle in transaction' and query like 'insert into inbox%'";
        sqlx::query_scalar::<_, i32>(sql).fetch_optional(&harness.db).await.expect("sessions")
    })
    .await;
    tokio::join!(running.stop(), async {
        let ended = sqlx::query_scalar::<_, bool>("select pg_terminate_backend($1, 5000)").bind(session);
        assert!(ended.fetch_one(&harness.db).await.expect("may be ended"));
        drop(locked);
    });
    assert!(harness.handled().await.is_empty(), "nothing was committed");

    // When this one is handled, the earlier one was handled before, or is lost.
    harness.send(key, 2).await;
    let running = test.start();
    eventually("the later one", async || {
        harness.handled().await.get(&key).filter(|handled| handled.ends_with(&[2])).cloned()
    })
    .await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&[key], 2));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_stuck_partition_does_not_block_the_others(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(24));
    let mut homes = BTreeMap::new();
    for key in &keys {
        homes.insert(*key, harness.send(*key, 1).await);
    }
    let stuck = keys[0];
    let elsewhere: Vec<_> = keys.iter().filter(|key| homes[*key] != homes[&stuck]).copied().collect();
    let running = test.start();
    harness.wait_for_handled(24).await;

    let lock = test.handler.key_lock(stuck);
    let locked = lock.write().await;
    // Nearly as many as may wait in memory.
    for version in 2..=900 {
        harness.send(stuck, version).await;
    }
    for version in 2..=20 {
        for key in &elsewhere {
            harness.send(*key, version).await;
        }
    }
    harness.wait_for_handled(24 + 19 * i64::try_from(elsewhere.len()).expect("few")).await;
    assert_eq!(harness.handled().await[&stuck], [1]);
    drop(locked);
    eventually("the rest", async || (harness.handled().await[&stuck].len() >= 900).then_some(())).await;
    running.stop().await;
    let (mut expected, all) = (versions(&elsewhere, 20), versions(&[stuck], 900));
    expected.extend(all);
    let mut handled = harness.handled().await;
    handled.retain(|key, _| expected.contains_key(key));
    assert_eq!(handled, expected);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn events_take_effect_once_and_in_order_during_rebalances(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(24));
    let mut running = test.start();
    let mut last = 0;
    for _ in 0..3 {
        let joining = test.start();
        for _ in 0..25 {
            last += 1;
            for key in &keys {
                harness.send(*key, last).await;
            }
        }
        running.stop().await;
        running = joining;
    }
    harness.wait_for_handled(24 * last).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, last));
    assert_eq!(test.dead_letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_member_that_is_fenced_joins_again(db: PgPool) {
    let harness = Harness::new(db).await;
    let (test, keys) = (harness.consumer(), keys(8));
    let mut config = bus::consumer_config(&brokers());
    config.set("group.instance.id", "one");
    let running = test.start_with(config.clone());
    for key in &keys {
        harness.send(*key, 1).await;
    }
    harness.wait_for_handled(8).await;

    let refused = || consumer_metric("consumer_failures_total", test.consumer.name);
    let (before, namesake) = (refused(), test.start_with(config));
    eventually("that it was fenced", async || (refused() > before).then_some(())).await;
    namesake.stop().await;
    for key in &keys {
        harness.send(*key, 2).await;
    }
    harness.wait_for_handled(16).await;
    running.stop().await;
    assert_eq!(harness.handled().await, versions(&keys, 2));
}
