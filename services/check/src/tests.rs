//! The check finds what is planted, reads what clients wrote down, and forgives what is only on its way.

use std::time::Duration;

use chassis::check::{Excuses, Finding, Range};
use dev::provider::{Provider as Simulator, Seed, seed};
use order::check::End;
use payment::check::Provider;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::discards::Discards;
use super::journal::{self, Outcome};
use super::plants::{RANGE, WRONG, about, id, paid, placed, sold};
use super::self_test::{self, scratch};
use super::walk::walk_orders;
use super::{Shop, Sizes};

#[tokio::test]
async fn every_violation_that_is_planted_is_found() {
    let admin = std::env::var("DATABASE_URL").expect("where tests make their databases");
    assert!(self_test::run(&admin.parse().expect("any text")).await.expect("it can be planted"), "see above");
}

async fn execute(db: &PgPool, statements: Vec<String>) {
    for statement in statements {
        db.execute(AssertSqlSafe(statement.clone())).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

/// A provider with an intent for each of these orders, created a second later, and its URL.
async fn provider(orders: &[(u128, u128)], stop: CancellationToken) -> String {
    let folder = std::env::temp_dir().join(format!("souk-provider-{}", Uuid::now_v7()));
    let seeds = orders.iter().map(|(order, intent)| Seed {
        intent_id: id(*intent),
        refund_id: None,
        created: u64::try_from(*intent).expect("small") * 1_000 + 1_000,
        amount: 100,
        metadata: vec![("order_id".to_owned(), id(*order).to_string())],
    });
    seed(&folder, seeds).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(Simulator::open(folder).expect("a ledger").serve_on(listener, stop));
    url
}

/// Ranges of three, over databases that have different things; what is wrong is on both sides of where a range ends.
#[tokio::test]
async fn what_is_compared_over_databases_is_found_whatever_range_it_is_in() {
    let admin = std::env::var("DATABASE_URL").expect("where tests make their databases").parse().expect("any text");
    let stop = CancellationToken::new();
    // None for orders 6 and 12, of which our books name one for order 6 only, a second one for order 8, and one for an order
    // that is not there.
    let intents = [(2, 2), (4, 4), (8, 8), (8, 9), (10, 10), (14, 14), (16, 16), (18, 18), (20, 20), (21, 21)];
    let url = provider(&intents, stop.clone()).await;
    let looked_at = scratch(&admin, &order::SCHEMA, async |order| {
        execute(order, about(2..=10, placed)).await;
        let confirm = r#"update "order" set state = 'CONFIRMED', captured = true"#;
        execute(order, vec![confirm.to_owned()]).await;
        execute(
            order,
            about(WRONG, |it| [format!(r#"update "order" set refunded_minor = 1 where order_id = '{it}'"#)]),
        )
        .await;
        scratch(&admin, &inventory::SCHEMA, async |inventory| {
            execute(inventory, about(1..=10, sold)).await;
            execute(inventory, about(WRONG, |it| [format!("delete from reservation where order_id = '{it}'")])).await;
            scratch(&admin, &payment::SCHEMA, async |payment| {
                execute(payment, about((2..=20).step_by(2), paid)).await;
                let named = "update payment set intent_id = 'pi_' || replace(payment_id::text, '-', '')";
                execute(payment, vec![named.to_owned()]).await;
                let long_ago = "alter table ledger_transfer disable trigger user;
                                update ledger_transfer set created_at = now() - interval '2 minutes'";
                execute(payment, vec![long_ago.to_owned()]).await;
                let unpaid = |it| [format!("update payment set captured_minor = 0 where order_id = '{it}'")];
                execute(payment, about([18], unpaid)).await;
                let unnamed = |it| [format!("update payment set intent_id = null where order_id = '{it}'")];
                execute(payment, about([12], unnamed)).await;
                let shop = Shop {
                    user: order.clone(),
                    product: order.clone(),
                    inventory: inventory.clone(),
                    order: order.clone(),
                    payment: payment.clone(),
                    kafka_brokers: String::new(),
                    provider: Some(Provider::new(&url, "sk_test_souk", 100_000, payment.clone()).expect("a URL")),
                    journal: None,
                    at_rest: false,
                    sizes: Sizes { range: RANGE, kept: RANGE },
                    look_again: Duration::ZERO,
                };
                walk_orders(&shop, &Discards::default()).await
            })
            .await
        })
        .await
    });
    let found = looked_at.await.expect("read");
    stop.cancel();
    let wrong = |things: &[u128]| things.iter().map(|it| id(*it).to_string()).collect::<Vec<_>>();
    // None of the orders has an event that confirms it.
    let all = wrong(&(2..=10).collect::<Vec<_>>());
    for (invariant, things, count, violated) in [
        ("I2", "orders at the provider", 11, wrong(&[6, 8, 12, 21])),
        ("I3", "payments", 10, wrong(&[18])),
        ("I4", "orders", 9, vec![]),
        ("I4", "orders in stock", 9, wrong(&WRONG)),
        ("I4", "orders and their refunds", 10, wrong(&[4])),
        ("I9", "orders", 9, all),
        ("I9", "reservations", 10, wrong(&WRONG)),
    ] {
        let finding = found.iter().find(|it| (it.invariant, it.things) == (invariant, things)).expect("it is asked");
        assert_eq!((finding.count, finding.violations.keys().cloned().collect()), (count, violated), "{finding:?}");
    }
}

#[test]
fn what_is_wrong_only_once_is_forgiven() {
    let mut first = Finding::new("I0", "things");
    first.look("a", Some("on its way".to_owned()));
    first.look("b", Some("wrong".to_owned()));
    let mut second = Finding::new("I0", "things");
    second.look("b", Some("still wrong".to_owned()));
    second.look("c", Some("on its way".to_owned()));
    second.keep_repeated(&first);
    assert_eq!(second.violations.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "still wrong".to_owned())]);
}

#[test]
fn what_is_recorded_while_topics_are_read_is_no_violation() {
    let finding = self_test::compare((1, 3), None, &[1, 2], Excuses::default());
    assert_eq!((finding.count, finding.violations.len()), (1, 0));
}

#[test]
fn what_was_discarded_excuses_what_it_can_explain_and_takes_no_room() {
    let excuses = || [Uuid::from_u128(1).to_string()].into_iter().collect::<Excuses>();
    let look = |recorded, told: &[i64]| self_test::compare((recorded, recorded), None, told, excuses());
    for (told, why) in [(&[1, 2, 3][..], "a stranger's event"), (&[1, 9, 2], "out of order")] {
        let finding = look(2, told);
        assert_eq!((finding.violations.len(), finding.excused), (0, 1), "{why}: {finding:?}");
    }
    for (told, why) in [(&[1][..], "never published"), (&[2], "nor in a gap"), (&[2, 1], "nor too late")] {
        let finding = look(2, told);
        assert_eq!((finding.violations.len(), finding.excused), (1, 0), "{why}: {finding:?}");
    }
    let all: Excuses = (0..2_000).map(|thing| format!("{thing:04}")).collect();
    let mut finding = Finding::new("I0", "things");
    for thing in 0..=2_000 {
        finding.look_unless(&all, format!("{thing:04}"), Some("wrong".to_owned()));
    }
    assert_eq!((finding.excused, finding.violations.into_keys().collect()), (2_000, vec!["2000".to_owned()]));
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn what_became_of_an_order_is_told_once_it_stays_so(db: PgPool) {
    let insert = r#"insert into "order" (order_id, user_id, state, version, currency, total_minor, payment_method, captured,
                      refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at)
                    select gen_random_uuid(), gen_random_uuid(), state, 1, 'EUR', 100, 'pm_card_visa', false, 0, '', '', '',
                      now(), now(), now() - age from unnest($1::text[], $2::interval[]) as made (state, age)"#;
    let states = ["CONFIRMED", "CONFIRMED", "CANCELLED", "PENDING"];
    let (old, new) =
        (sqlx::postgres::types::PgInterval { microseconds: 120_000_000, ..Default::default() }, Default::default());
    let ages = [old, new, old, old];
    sqlx::query(insert).bind(&states[..]).bind(&ages[..]).execute(&db).await.expect("inserted");
    let orders = order::check::order_ids(&db, Range::ALL).await.expect("read");
    let ends = order::check::ends(&db, &orders, OffsetDateTime::now_utc()).await.expect("read");
    let mut ends: Vec<_> = ends.into_values().map(|end| end == End::Sold).collect();
    ends.sort_unstable();
    assert_eq!(ends, [false, true]);
}

#[test]
fn journals_are_read_line_by_line_and_a_torn_end_is_left_away() {
    let path = std::env::temp_dir().join(format!("souk-journal-{}", Uuid::now_v7()));
    let order_id = Uuid::now_v7();
    let whole = format!(
        "{{\"attempt\":1,\"key\":\"k1\",\"kind\":\"create\",\"outcome\":\"unknown\",\"at\":\"2026-01-01T00:00:00Z\"}}\n\
         {{\"attempt\":\"2\",\"key\":\"k1\",\"kind\":\"create\",\"outcome\":\"ok\",\"order_id\":\"{order_id}\",\"at\":1}}\n"
    );
    std::fs::write(&path, format!("{whole}{{\"attempt\":3,\"ke")).expect("written");
    let attempts = journal::read(&path).expect("read");
    let read: Vec<_> = attempts.iter().map(|it| (it.outcome, it.order_id)).collect();
    assert_eq!(read, [(Outcome::Unknown, None), (Outcome::Ok, Some(order_id))]);
    std::fs::write(&path, format!("{whole}no attempt\n")).expect("written");
    let refused = journal::read(&path).expect_err("not JSON").to_string();
    assert!(refused.contains("line 3"), "{refused}");
    std::fs::remove_file(&path).expect("it is there");
}
