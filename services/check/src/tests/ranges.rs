//! I2, I3, I4, I7, I9 and I12 of orders that are compared over several databases and with the provider, by ranges.

use std::time::Duration;

use chassis::boot::db::Schema;
use chassis::check::Range;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderItemsReturned, ReturnDisposition, ReturnedItem};
use order::check::Settled;
use payment::check::Provider;
use provider::{Provider as Simulator, Seed, seed};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::figures::counted;
use super::notifications::told;
use super::orders::{bytes, placed};
use super::payments::paid;
use super::stock::sold;
use super::{RANGE, WRONG, execute, for_each, id};
use crate::dead_letters::Discarded;
use crate::orders::check_orders;
use crate::{Sizes, Sources};

/// A provider with an intent for each of these orders, created a second later. Its URL, and the folder of its ledger.
async fn provider(orders: &[(u128, u128)], stop: CancellationToken) -> (String, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = orders.iter().map(|(order, intent)| Seed {
        intent_id: id(*intent),
        refund_id: None,
        created: u64::try_from(*intent).expect("small") * 1_000 + 1_000,
        amount: 100,
        metadata: vec![("order_id".to_owned(), id(*order).to_string())],
    });
    seed(folder.path(), seeds).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(Simulator::open(folder.path()).expect("a ledger").serve_on(listener, stop));
    (url, folder)
}

/// The tables of another service than order, in a schema instead of a database.
async fn tables(schema: &Schema, options: &PgConnectOptions) -> PgPool {
    let options = options.clone().options([("search_path", schema.service)]);
    let db = PgPoolOptions::new().max_connections(2).connect_with(options).await.expect("Postgres is there");
    db.execute(AssertSqlSafe(format!(r#"create schema "{}""#, schema.service))).await.expect("a schema");
    schema.migrator.run(&db).await.expect("the migrations apply");
    db
}

/// A unit of an order was sent, came back and was restocked.
fn unit_returned(order_id: Uuid) -> [String; 3] {
    let item = ReturnedItem {
        sku: "MUG".to_owned(),
        quantity: 1,
        disposition: ReturnDisposition::Restock.into(),
        ..Default::default()
    };
    let returned = OrderItemsReturned { items: vec![item], ..Default::default() };
    let event = OrderEvent { event: Some(Event::OrderItemsReturned(returned)), ..Default::default() };
    [
        format!(
            "insert into order_line (order_id, line, product_id, sku, title, quantity, price_minor, fulfilled, returned)
             values ('{order_id}', 1, gen_random_uuid(), 'MUG', '', 1, 1, 1, 1)"
        ),
        format!(r#"update "order" set shipments = 1, returns = 1 where order_id = '{order_id}'"#),
        format!(
            "insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
             values ('{order_id}', 2, gen_random_uuid(), 'souk.order.v1.OrderItemsReturned', {}, '', now())",
            bytes(&event),
        ),
    ]
}

/// Ranges of three rows, over databases that have different rows; violations are on both sides of the end of a range.
#[sqlx::test(migrator = "order::MIGRATOR")]
async fn comparisons_of_databases_find_violations_in_any_range(pools: PgPoolOptions, options: PgConnectOptions) {
    let stop = CancellationToken::new();
    // No intent for orders 6 and 12, of which the ledger names one for order 6 only; a second one for order 8; and one for an
    // order that does not exist.
    let intents = [(2, 2), (4, 4), (8, 8), (8, 9), (10, 10), (14, 14), (16, 16), (18, 18), (20, 20), (21, 21)];
    let (url, _folder) = provider(&intents, stop.clone()).await;

    let order = pools.connect_with(options.clone()).await.expect("Postgres is there");
    execute(&order, for_each(2..=10, placed)).await;
    let confirm = r#"update "order" set state = 'CONFIRMED', captured = true"#;
    execute(&order, vec![confirm.to_owned()]).await;
    let refunded = |it| [format!(r#"update "order" set refunded_minor = 1 where order_id = '{it}'"#)];
    execute(&order, for_each(WRONG, refunded)).await;

    let inventory = tables(&inventory::SCHEMA, &options).await;
    execute(&inventory, for_each(1..=10, sold)).await;
    execute(&inventory, for_each(WRONG, |it| [format!("delete from reservation where order_id = '{it}'")])).await;

    let payment = tables(&payment::SCHEMA, &options).await;
    execute(&payment, for_each((2..=20).step_by(2), paid)).await;
    let named = "update payment set intent_id = 'pi_' || replace(payment_id::text, '-', '')";
    execute(&payment, vec![named.to_owned()]).await;
    let long_ago = "alter table ledger_transfer disable trigger user;
                    update ledger_transfer set created_at = now() - interval '2 minutes'";
    execute(&payment, vec![long_ago.to_owned()]).await;
    let unpaid = |it| [format!("update payment set captured_minor = 0 where order_id = '{it}'")];
    execute(&payment, for_each([18], unpaid)).await;
    let unnamed = |it| [format!("update payment set intent_id = null where order_id = '{it}'")];
    execute(&payment, for_each([12], unnamed)).await;

    // Orders that were never confirmed.
    let notification = tables(&notification::SCHEMA, &options).await;
    execute(&notification, for_each(WRONG, told)).await;

    // Of four orders a unit came back: of one, inventory does not know it, and of another, payment does not.
    let orders_of_returns = [2, 4, 6, 8];
    execute(&order, for_each(orders_of_returns, unit_returned)).await;
    let restocked = |it| {
        [
            format!("insert into reservation_line (order_id, sku, quantity, returned) values ('{it}', 'MUG', 1, 1)"),
            format!(
                "insert into stock_movement (sku, reason, units, actor, order_id, at)
                 values ('MUG', 'RETURNED', 1, '', '{it}', now())"
            ),
        ]
    };
    execute(&inventory, for_each([2, 6, 8], restocked)).await;
    let asked = |it| {
        [format!(
            "insert into order_return (payment_id, number, asked_minor, minor, created_at)
             select payment_id, 1, 1, 0, now() from payment where order_id = '{it}'"
        )]
    };
    execute(&payment, for_each([2, 4, 8], asked)).await;

    // Orders that were never placed are counted, and two that were placed are not.
    let analytics = tables(&analytics::SCHEMA, &options).await;
    execute(&analytics, for_each((1..=11).filter(|it| !WRONG.contains(it)), counted)).await;

    let sources = Sources {
        databases: vec![],
        inventory: inventory.clone(),
        order: order.clone(),
        payment: payment.clone(),
        notification: notification.clone(),
        analytics: analytics.clone(),
        kafka: bus::Brokers::plain("127.0.0.1:1"),
        provider: Some(Provider::new(&url, "sk_test_souk", 100_000, payment.clone()).expect("a URL")),
        journal: None,
        at_rest: false,
        give_up_after: Duration::from_secs(86_400),
        sizes: Sizes { rows_per_range: RANGE, keys_in_memory: RANGE },
        recheck_pause: Duration::ZERO,
    };
    let found = check_orders(&sources, &Discarded::default()).await.expect("checked");
    stop.cancel();
    for db in [order, inventory, payment, notification, analytics] {
        db.close().await;
    }
    let wrong = |rows: &[u128]| rows.iter().map(|it| id(*it).to_string()).collect::<Vec<_>>();
    // No order has an event that confirms it.
    let all = wrong(&(2..=10).collect::<Vec<_>>());
    for (invariant, things, count, violated) in [
        ("I2", "orders at the provider", 11, wrong(&[6, 8, 12, 21])),
        ("I3", "payments", 10, wrong(&[18])),
        ("I4", "orders", 9, vec![]),
        ("I4", "orders in stock", 9, wrong(&WRONG)),
        ("I4", "orders and their refunds", 10, wrong(&[4])),
        ("I4", "orders and their returns", 9, wrong(&[4, 6])),
        ("I7", "orders and their notifications", 9, wrong(&WRONG)),
        ("I12", "orders in figures", 11, wrong(&[1, 3, 4, 11])),
        ("I9", "orders", 9, all),
        ("I9", "reservations", 10, wrong(&WRONG)),
    ] {
        let finding = found.iter().find(|it| (it.invariant, it.subject) == (invariant, things)).expect("it is checked");
        assert_eq!((finding.checked, finding.violations.keys().cloned().collect()), (count, violated), "{finding:?}");
    }
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_is_settled_once_it_did_not_change_for_a_while(db: PgPool) {
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
    let settled = order::check::settled(&db, &orders, OffsetDateTime::now_utc()).await.expect("read");
    let mut sold: Vec<_> = settled.into_values().map(|settled| settled == Settled::Sold).collect();
    sold.sort_unstable();
    assert_eq!(sold, [false, true]);
}
