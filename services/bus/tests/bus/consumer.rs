//! From the topic to the effect.

use std::collections::BTreeMap;

use chassis::Clock;
use chassis::event::Consumer;
use chassis::event::dead_letter::{self, Discard, RedriveError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::ground::{Ground, brokers, eventually, metric};

fn keys(count: u128) -> Vec<Uuid> {
    (1..=count).map(Uuid::from_u128).collect()
}

fn story(keys: &[Uuid], last: i64) -> BTreeMap<Uuid, Vec<i64>> {
    keys.iter().map(|key| (*key, (1..=last).collect())).collect()
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn repeats_have_one_effect(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(5));
    let running = listener.start();
    for version in 1..=20 {
        for key in &keys {
            ground.say(*key, version).await;
            ground.say(*key, version).await;
        }
        ground.say(keys[0], 1).await;
    }
    ground.hears(100).await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&keys, 20));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn reading_everything_again_changes_nothing(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(8));
    for version in 1..=20 {
        for key in &keys {
            ground.say(*key, version).await;
        }
    }
    let running = listener.start();
    ground.hears(160).await;
    running.stop().await;

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("the settings are right");
    let forgotten = admin.delete_groups(&[listener.consumer.name], &AdminOptions::new()).await.expect("an answer");
    assert!(forgotten[0].is_ok(), "{forgotten:?}");

    let running = listener.start();
    // Behind everything else, in every partition that has something.
    for key in &keys {
        ground.say(*key, 21).await;
    }
    ground.hears(168).await;
    running.stop().await;
    assert!(metric("events_repeated_total", listener.consumer.name) >= 160.0);
    assert_eq!(ground.heard().await, story(&keys, 21));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_poisoned_event_parks_its_key_only_until_it_is_redriven(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(12));
    let poisoned = keys[3];
    listener.scribe.refused.lock().expect("no panics").push((poisoned, 3));
    let running = listener.start();
    for version in 1..=10 {
        for key in &keys {
            ground.say(*key, version).await;
        }
    }
    ground.hears(11 * 10 + 2).await;
    let letters = eventually("all letters", async || Some(listener.letters().await).filter(|it| it.len() == 8)).await;
    assert_eq!(letters[0], (poisoned, 3, "refused".to_owned()));
    assert_eq!(letters[7], (poisoned, 10, "parked".to_owned()));
    assert_eq!(ground.heard().await[&poisoned], [1, 2]);

    listener.scribe.refused.lock().expect("no panics").clear();
    let redriven = dead_letter::redrive(&listener.consumer, &Clock::System, poisoned).await;
    assert_eq!(redriven.expect("mended"), 8);
    ground.say(poisoned, 11).await;
    ground.hears(121).await;
    running.stop().await;
    let mut expected = story(&keys, 10);
    expected.insert(poisoned, (1..=11).collect());
    assert_eq!(ground.heard().await, expected);
    assert_eq!(listener.letters().await, []);
}

/// The bug is mended and what it parked is redriven, while more and more of the same keys comes in.
#[sqlx::test(migrations = "../../migrations/order")]
async fn a_mended_bug_is_redriven_in_order_while_events_go_on(db: PgPool) {
    const LAST: i64 = 60;
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(6));
    let parked = &keys[..3];
    listener.scribe.refused.lock().expect("no panics").extend(parked.iter().map(|key| (*key, 3)));
    let running = listener.start();
    let writer = async {
        for version in 1..=LAST {
            for key in &keys {
                ground.say(*key, version).await;
            }
        }
    };
    let mender = async {
        eventually("all three to be parked", async || {
            let letters = listener.letters().await;
            parked.iter().all(|key| letters.iter().any(|letter| letter.0 == *key)).then_some(())
        })
        .await;
        listener.scribe.refused.lock().expect("no panics").clear();
        for key in parked {
            let redriven = dead_letter::redrive(&listener.consumer, &Clock::System, *key).await;
            assert!(redriven.expect("mended") > 0);
        }
    };
    tokio::join!(writer, mender);
    ground.hears(6 * LAST).await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&keys, LAST));
    assert_eq!(listener.letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn what_is_no_event_holds_nobody_up(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, key) = (ground.scribe(), Uuid::from_u128(1));
    ground.say(key, 1).await;
    ground.babble(key).await;
    ground.say(key, 2).await;
    let running = listener.start();
    ground.hears(2).await;
    running.stop().await;
    let missing = "the header ce_type is missing or malformed".to_owned();
    assert_eq!(listener.letters().await, [(Uuid::nil(), 0, missing)]);
    assert_eq!(metric("events_unreadable_total", listener.consumer.name), 1.0);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn what_is_no_event_is_never_redriven_and_stays_away_once_it_was_discarded(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, key) = (ground.scribe(), Uuid::from_u128(1));
    ground.babble(key).await;
    let running = listener.start();
    let letter = eventually("the dead letter", async || {
        let letters = dead_letter::list(&ground.db, None, 0, 10).await.expect("letters");
        letters.into_iter().next()
    })
    .await;
    running.stop().await;
    let redriven = dead_letter::redrive(&listener.consumer, &Clock::System, Uuid::nil()).await;
    assert!(matches!(redriven, Err(RedriveError::Unreadable)), "{redriven:?}");
    assert_eq!(listener.letters().await.len(), 1, "it is still there");

    let Consumer { name, db, .. } = &listener.consumer;
    let what = Discard { consumer: name, key: Uuid::nil(), ids: &[letter.id], reason: "babble", actor: "operator:x" };
    dead_letter::discard(db, &Clock::System, what).await.expect("it is there");
    // As by a process that stopped before the offset was stored.
    let mut db = db.acquire().await.expect("the database is there");
    dead_letter::insert(&mut db, name, &Clock::System, &letter.record, "again").await.expect("a repeat");
    assert_eq!(listener.letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_database_that_is_away_for_a_moment_is_waited_for(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(8));
    let running = listener.start();
    for key in &keys {
        ground.say(*key, 1).await;
    }
    ground.hears(8).await;

    let options = ground.db.connect_options();
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
            ground.say(*key, version).await;
        }
    }
    let tried = || metric("events_retried_total", listener.consumer.name) >= 8.0;
    eventually("that it was tried", async || tried().then_some(())).await;
    allow(&mut server, "true").await;

    ground.hears(80).await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&keys, 10));
    assert_eq!(listener.letters().await, []);
}

/// As by a process that is told to stop and loses its database in the middle of the work.
#[sqlx::test(migrations = "../../migrations/order")]
async fn what_was_cut_off_before_it_had_an_effect_is_read_again(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, key) = (ground.scribe(), Uuid::from_u128(1));
    let pen = listener.scribe.pen(key);
    let pen = pen.write().await;
    let running = listener.start();
    ground.say(key, 1).await;
    let session = eventually("that it is at work", async || {
        let sql = "select pid from pg_stat_activity where datname = current_database()
                     and state = 'idle in transaction' and query like 'insert into inbox%'";
        sqlx::query_scalar::<_, i32>(sql).fetch_optional(&ground.db).await.expect("sessions")
    })
    .await;
    tokio::join!(running.stop(), async {
        let ended = sqlx::query_scalar::<_, bool>("select pg_terminate_backend($1, 5000)").bind(session);
        assert!(ended.fetch_one(&ground.db).await.expect("may be ended"));
        drop(pen);
    });
    assert!(ground.heard().await.is_empty(), "nothing was committed");

    // Behind it: when this one is heard, the other is heard or lost.
    ground.say(key, 2).await;
    let running = listener.start();
    eventually("the later one", async || ground.heard().await.get(&key).filter(|heard| heard.ends_with(&[2])).cloned())
        .await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&[key], 2));
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_partition_that_stands_still_holds_no_other_up(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(24));
    let mut homes = BTreeMap::new();
    for key in &keys {
        homes.insert(*key, ground.say(*key, 1).await);
    }
    let stuck = keys[0];
    let elsewhere: Vec<_> = keys.iter().filter(|key| homes[*key] != homes[&stuck]).copied().collect();
    let running = listener.start();
    ground.hears(24).await;

    let pen = listener.scribe.pen(stuck);
    let pen = pen.write().await;
    // Nearly as much as may wait in memory.
    for version in 2..=900 {
        ground.say(stuck, version).await;
    }
    for version in 2..=20 {
        for key in &elsewhere {
            ground.say(*key, version).await;
        }
    }
    ground.hears(24 + 19 * i64::try_from(elsewhere.len()).expect("few")).await;
    assert_eq!(ground.heard().await[&stuck], [1]);
    drop(pen);
    eventually("the rest", async || (ground.heard().await[&stuck].len() >= 900).then_some(())).await;
    running.stop().await;
    let (mut expected, all) = (story(&elsewhere, 20), story(&[stuck], 900));
    expected.extend(all);
    let mut heard = ground.heard().await;
    heard.retain(|key, _| expected.contains_key(key));
    assert_eq!(heard, expected);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn replicas_that_come_and_go_hear_everything_once_and_in_order(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(24));
    let mut running = listener.start();
    let mut last = 0;
    for _ in 0..3 {
        let joining = listener.start();
        for _ in 0..25 {
            last += 1;
            for key in &keys {
                ground.say(*key, last).await;
            }
        }
        running.stop().await;
        running = joining;
    }
    ground.hears(24 * last).await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&keys, last));
    assert_eq!(listener.letters().await, []);
}

#[sqlx::test(migrations = "../../migrations/order")]
async fn a_member_that_is_taken_for_another_joins_anew(db: PgPool) {
    let ground = Ground::open(db).await;
    let (listener, keys) = (ground.scribe(), keys(8));
    let mut config = bus::consumer_config(&brokers());
    config.set("group.instance.id", "one");
    let running = listener.start_with(config.clone());
    for key in &keys {
        ground.say(*key, 1).await;
    }
    ground.hears(8).await;

    let refused = || metric("consumer_failures_total", listener.consumer.name);
    let (before, namesake) = (refused(), listener.start_with(config));
    eventually("that it was shut out", async || (refused() > before).then_some(())).await;
    namesake.stop().await;
    for key in &keys {
        ground.say(*key, 2).await;
    }
    ground.hears(16).await;
    running.stop().await;
    assert_eq!(ground.heard().await, story(&keys, 2));
}
