//! Writes the orders into the databases: one statement for each table.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::story::{CANCELLED, Event, MILLIS, PRICE, PRODUCT, SKUS, Story, USER};
use stack::layout::Layout;
use stack::postgres::ADMINISTRATOR;

pub(super) async fn write(layout: &Layout, story: &Story) -> Result<()> {
    tokio::try_join!(
        run(layout, "souk_order", story, orders(story)),
        run(layout, "souk_inventory", story, reservations(story)),
        run(layout, "souk_payment", story, payments()),
        run(layout, "souk_notification", story, notifications()),
        run(layout, "souk_analytics", story, figures(story)),
    )?;
    Ok(())
}

async fn run(layout: &Layout, database: &str, story: &Story, statements: Vec<String>) -> Result<()> {
    let mut db = PgConnection::connect(&layout.database(ADMINISTRATOR, database)?).await?;
    for statement in made(story).into_iter().chain(statements).chain(["vacuum analyze".to_owned()]) {
        let done = db.execute(AssertSqlSafe(statement.clone())).await;
        done.with_context(|| format!("{database}: {statement}"))?;
    }
    Ok(db.close().await?)
}

/// Creates a table of all orders, with the same ids as in the topics.
fn made(story: &Story) -> Vec<String> {
    let (count, begin) = (story.count, story.begin);
    vec![
        "create function pg_temp.made_id(number bigint, at bigint, kind text) returns uuid immutable language sql as
           $$ select (lpad(to_hex(at), 12, '0') || '7000' || kind || lpad(to_hex(number), 15, '0'))::uuid $$"
            .to_owned(),
        format!(
            "create temporary table made as
             select number, to_timestamp(0) + at * interval '1 millisecond' as at, number % {CANCELLED} = 0 as cancelled,
               pg_temp.made_id(number, at, '8') as order_id, pg_temp.made_id(number, at, '9') as payment_id,
               'pi_' || replace(pg_temp.made_id(number, at, '8')::text, '-', '') as intent_id,
               're_' || replace(pg_temp.made_id(number, at, '9')::text, '-', '') as refund_id
             from (select number, {begin} + number * {MILLIS} as at from generate_series(1, {count}) as number) as numbers"
        ),
    ]
}

fn orders(story: &Story) -> Vec<String> {
    let expires_at = format!("to_timestamp({})", story.expires_at);
    let (kept, cancelled) = counts(&story.order_events);
    let mut all = vec![
        format!(
            r#"insert into "order" (order_id, user_id, state, version, currency, total_minor, payment_method, payment_id,
                 captured, refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at)
               select order_id, '{USER}', case when cancelled then 'CANCELLED' else 'CONFIRMED' end,
                 case when cancelled then {cancelled} else {kept} end, 'EUR', {PRICE}, 'pm_card_visa', payment_id, true,
                 case when cancelled then {PRICE} else 0 end,
                 case when cancelled then 'CANCEL_REASON_CUSTOMER_REQUEST' else '' end, '', '', {expires_at}, at,
                 at + (case when cancelled then {cancelled} else {kept} end - 1) * interval '{MILLIS} milliseconds' from made"#
        ),
        format!(
            "insert into order_line (order_id, line, product_id, sku, title, quantity, price_minor)
             select order_id, 1, '{PRODUCT}', 'SKU', 'A thing', 1, {PRICE} from made"
        ),
        format!(
            "insert into idempotency (caller, method, key, request_hash, response, created_at)
             select 'user:{USER}', 'souk.order.v1.CreateOrderRequest', 'order-' || number, sha256('x'), {}, at from made",
            story.response().to_sql()
        ),
    ];
    for (event, version) in story.order_events.iter().zip(1..) {
        all.push(format!(
            "insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
             select order_id, {version}, gen_random_uuid(), '{}', {}, 'service:order',
               at + ({version} - 1) * interval '{MILLIS} milliseconds' from made where cancelled or not {}",
            event.event_type,
            event.payload.to_sql(),
            event.of_cancelled,
        ));
    }
    all
}

fn reservations(story: &Story) -> Vec<String> {
    let (kept, cancelled) = counts(&story.inventory_events);
    let history = |version, state: &str, which: &str| {
        format!(
            "insert into reservation_history (order_id, version, state, at)
             select order_id, {version}, '{state}', at from made where {which}"
        )
    };
    vec![
        format!(
            "insert into reservation (order_id, state, version, created_at, updated_at, checked_at, user_id)
             select order_id, case when cancelled then 'RETURNED' else 'SOLD' end,
               case when cancelled then {cancelled} else {kept} end, at, at, at, '{USER}' from made"
        ),
        format!(
            "insert into reservation_line (order_id, sku, quantity) select order_id, 'SKU-' || number % {SKUS}, 1 from made"
        ),
        history(1, "HELD", "true"),
        history(2, "SOLD", "true"),
        history(3, "RETURNED", "cancelled"),
        format!(
            "insert into stock (sku, available, sold, received)
             select 'SKU-' || number % {SKUS}, 10, count(*) filter (where not cancelled),
               10 + count(*) filter (where not cancelled) from made group by number % {SKUS}"
        ),
    ]
}

fn notifications() -> Vec<String> {
    let told = |kind, which| {
        format!(
            "insert into notification (notification_id, user_id, subject_id, kind, channel, event, occurred_at, state, attempts,
               error, created_at, wanted_at, delivered_at)
             select gen_random_uuid(), '{USER}', order_id, '{kind}', 'EMAIL', '', at, 'DELIVERED', 1, '', at, at, at
             from made where {which}"
        )
    };
    vec![told("ORDER_CONFIRMED", "true"), told("ORDER_CANCELLED", "cancelled")]
}

fn payments() -> Vec<String> {
    let transfer = |kind, accounts, reference, which| {
        format!(
            "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
             select payment_id, '{kind}', {accounts}, 'EUR', {PRICE}, {reference}, at from made where {which}"
        )
    };
    vec![
        format!(
            "insert into payment (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
               captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts,
               created_at, updated_at)
             select payment_id, order_id, '{USER}', case when cancelled then 'RELEASED' else 'CAPTURED' end, 'CAPTURED', 'EUR',
               {PRICE}, 'pm_card_visa', intent_id, {PRICE}, case when cancelled then {PRICE} else 0 end, 0, '',
               case when cancelled then 3 else 2 end, gen_random_uuid(), at, 0, at, at from made"
        ),
        "insert into payment_history (payment_id, state, at)
         select payment_id, state, at from made, unnest(array['PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'CAPTURED'])
           with ordinality as past (state, place) order by number, place"
            .to_owned(),
        transfer("AUTHORIZATION", "'customer', 'held'", "intent_id", "true"),
        transfer("CAPTURE", "'held', 'revenue'", "intent_id", "true"),
        transfer("REFUND", "'revenue', 'customer'", "refund_id", "cancelled"),
        format!(
            "insert into refund (refund_id, payment_id, minor, state, reference, actor, reason, call, created_at, updated_at)
             select payment_id, payment_id, {PRICE}, 'DONE', refund_id, 'service:payment', 'ORDER_ENDED', 1, at, at
             from made where cancelled"
        ),
    ]
}

/// The number of events of an order that was kept, and of one that was cancelled.
fn counts(events: &[Event]) -> (usize, usize) {
    (events.iter().filter(|event| !event.of_cancelled).count(), events.len())
}

/// All in one quarter: where figures are does not matter for sums.
fn figures(story: &Story) -> Vec<String> {
    let quarter = format!("to_timestamp({} / 900 * 900)", story.begin / 1_000);
    let live = "(select projection_id from projection where state = 'LIVE')";
    let (placed_to_paid, cancelled) = (1 | 2 | 4 | 8, 128);
    vec![
        format!(
            "insert into counted_order (projection_id, order_id, version, placed_at, stages, lines)
             select {live}, order_id, case when cancelled then {all} else {kept} end, at,
               case when cancelled then {placed_to_paid} | {cancelled} else {placed_to_paid} end, '' from made",
            all = counts(&story.order_events).1,
            kept = counts(&story.order_events).0,
        ),
        format!(
            "insert into funnel (projection_id, quarter, stage, reason, orders)
             select {live}, {quarter}, stage, reason, count(*)
             from made join (values ('PLACED', '', false), ('RESERVED', '', false), ('CONFIRMED', '', false), ('PAID', '', false),
                 ('CANCELLED', 'CANCEL_REASON_CUSTOMER_REQUEST', true)) as counted (stage, reason, only_cancelled)
               on cancelled or not only_cancelled
             group by stage, reason"
        ),
        format!(
            "insert into confirmation_time (projection_id, quarter, bucket, orders)
             select {live}, {quarter}, 1, count(*) from made"
        ),
        format!(
            "insert into sales (projection_id, quarter, currency, paid_orders, gross, refunded)
             select {live}, {quarter}, 'EUR', count(*), count(*) * {PRICE}, count(*) filter (where cancelled) * {PRICE} from made"
        ),
        format!(
            "insert into product_sales (projection_id, quarter, product_id, currency, sku, title, orders, units, gross)
             select {live}, {quarter}, '{PRODUCT}', 'EUR', 'SKU', 'A thing', count(*), count(*), count(*) * {PRICE} from made"
        ),
    ]
}
