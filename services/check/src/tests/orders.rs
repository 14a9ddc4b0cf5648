//! I4, I6 and I9: orders, their events, and the stored responses to the requests that created them.

use chassis::check::Exemptions;
use chassis::timestamp;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::{Message, Name};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{RANGE, ROWS, WRONG, assert_found, by_ranges, for_each};

/// An order that was placed two minutes ago and has three minutes until its deadline, its event and its stored response.
pub(super) fn placed(order_id: Uuid) -> [String; 3] {
    let user_id = Uuid::from_u128(2);
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (at, expires_at) = (now - Duration::minutes(2), now + Duration::minutes(3));
    let placed = OrderPlaced {
        lines: vec![],
        payment_method: "pm_card_visa".to_owned(),
        expire_time: Some(timestamp(expires_at)),
    };
    let event = OrderEvent {
        order_id: order_id.to_string(),
        user_id: user_id.to_string(),
        total: Some(Money::new("EUR", 100)),
        event: Some(Event::OrderPlaced(placed)),
    };
    [
        format!(
            r#"insert into "order" (order_id, user_id, state, version, currency, total_minor, payment_method, captured,
                 refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at)
               values ('{order_id}', '{user_id}', 'PENDING', 1, 'EUR', 100, 'pm_card_visa', false, 0, '', '', '',
                 to_timestamp({}), to_timestamp({at}), to_timestamp({at}))"#,
            expires_at.unix_timestamp(),
            at = at.unix_timestamp(),
        ),
        format!(
            "insert into order_event (order_id, version, event_id, type, payload, actor, occurred_at)
             values ('{order_id}', 1, gen_random_uuid(), 'souk.order.v1.OrderPlaced', {}, 'user:{user_id}', to_timestamp({}))",
            bytes(&event),
            at.unix_timestamp(),
        ),
        stored_response("first", order_id),
    ]
}

pub(super) fn bytes(message: &impl Message) -> String {
    format!(r"'\x{}'::bytea", hex::encode(message.encode_to_vec()))
}

/// The stored response to a request that created this order, under a key with this prefix.
fn stored_response(key: &str, order_id: Uuid) -> String {
    let order = Some(Order { order_id: order_id.to_string(), ..Default::default() });
    let (method, response) = (CreateOrderRequest::full_name(), bytes(&CreateOrderResponse { order }));
    format!(
        "insert into idempotency (caller, method, key, request_hash, response, created_at)
         values ('somebody', '{method}', '{key} {order_id}', '', {response}, now())"
    )
}

async fn plant_in_settled(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let check = async || {
        let (exemptions, now) = (Exemptions::default(), OffsetDateTime::now_utc());
        let end = async |after| order::check::range_end(&db, after, RANGE).await;
        by_ranges(end, async |range| order::check::check_settled(&db, range, now, &exemptions).await).await
    };
    assert_found(&db, for_each(1..=ROWS, placed), for_each(WRONG, violation), WRONG.len(), check).await;
}

fn confirmed_without_an_event(it: Uuid) -> [String; 1] {
    [format!(r#"update "order" set state = 'CONFIRMED' where order_id = '{it}'"#)]
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_that_never_settled(db: PgPool) {
    plant_in_settled(db, |it| {
        [format!(r#"update "order" set expires_at = now() - interval '2 minutes' where order_id = '{it}'"#)]
    })
    .await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_that_was_confirmed_and_never_paid(db: PgPool) {
    plant_in_settled(db, confirmed_without_an_event).await;
}

async fn plant_in_events(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let check = async || {
        let end = async |after| order::check::range_end(&db, after, RANGE).await;
        by_ranges(end, async |range| order::check::check_orders(&db, range).await).await
    };
    assert_found(&db, for_each(1..=ROWS, placed), for_each(WRONG, violation), WRONG.len(), check).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_that_is_not_what_its_events_say(db: PgPool) {
    plant_in_events(db, confirmed_without_an_event).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_without_events(db: PgPool) {
    plant_in_events(db, |it| [format!("delete from order_event where order_id = '{it}'")]).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn events_without_an_order(db: PgPool) {
    plant_in_events(db, |it| [format!(r#"delete from "order" where order_id = '{it}'"#)]).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn a_history_that_lacks_an_event(db: PgPool) {
    plant_in_events(db, |it| [format!("update order_event set version = 2 where order_id = '{it}'")]).await;
}

async fn plant_in_responses(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let check = async || order::check::check_responses(&db, OffsetDateTime::now_utc(), RANGE).await;
    assert_found(&db, for_each(1..=ROWS, placed), for_each(WRONG, violation), WRONG.len(), check).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_that_was_created_without_a_key(db: PgPool) {
    plant_in_responses(db, |it| [format!("delete from idempotency where key = 'first {it}'")]).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn one_order_under_two_keys(db: PgPool) {
    plant_in_responses(db, |it| [stored_response("second", it)]).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn a_stored_response_with_an_order_that_does_not_exist(db: PgPool) {
    plant_in_responses(db, |it| [format!(r#"delete from "order" where order_id = '{it}'"#)]).await;
}
