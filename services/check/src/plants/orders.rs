//! What is planted among orders, their events and the answers to those who placed them.

use chassis::check::Excuses;
use chassis::timestamp;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::{Message, Name};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Look, Plant, RANGE, THINGS, WRONG, about, all, walk};
use crate::check_parked;

/// An order of two minutes ago that was placed and has three minutes left, the event that says so and the answer that was
/// given.
pub(crate) fn placed(order_id: Uuid) -> [String; 3] {
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
        answered("first", order_id),
    ]
}

fn bytes(message: &impl Message) -> String {
    let hex: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r"'\x{hex}'::bytea")
}

/// That a request under a key which begins so was answered with this order.
fn answered(key: &str, order_id: Uuid) -> String {
    let order = Some(Order { order_id: order_id.to_string(), ..Default::default() });
    let (method, response) = (CreateOrderRequest::full_name(), bytes(&CreateOrderResponse { order }));
    format!(
        "insert into idempotency (caller, method, key, request_hash, response, created_at)
         values ('somebody', '{method}', '{key} {order_id}', '', {response}, now())"
    )
}

pub(super) fn orders() -> Vec<Plant> {
    let plant = |invariant, what, violation: fn(Uuid) -> [String; 1], look: Look| Plant {
        invariant,
        what,
        schema: &order::SCHEMA,
        sound: about(1..=THINGS, placed),
        violation: about(WRONG, violation),
        wrong: WRONG.len(),
        look,
    };
    let settled: Look = |db| {
        Box::pin(async move {
            let (excuses, now) = (Excuses::default(), OffsetDateTime::now_utc());
            let end = |after| order::check::range_end(&db, after, RANGE);
            walk(end, |range| order::check::check_settled(&db, range, now, &excuses)).await
        })
    };
    let legal: Look = |db| {
        Box::pin(async move {
            let end = |after| order::check::range_end(&db, after, RANGE);
            walk(end, |range| order::check::check_orders(&db, range)).await
        })
    };
    let confirmed = |it| [format!(r#"update "order" set state = 'CONFIRMED' where order_id = '{it}'"#)];
    let late =
        |it| [format!(r#"update "order" set expires_at = now() - interval '2 minutes' where order_id = '{it}'"#)];
    vec![
        plant("I4", "an order that never settled", late, settled),
        plant("I4", "an order that was confirmed and never paid", confirmed, settled),
        plant("I9", "an order that is not what its events say", confirmed, legal),
        plant(
            "I9",
            "an order without events",
            |it| [format!("delete from order_event where order_id = '{it}'")],
            legal,
        ),
        plant("I9", "events without an order", |it| [format!(r#"delete from "order" where order_id = '{it}'"#)], legal),
        plant(
            "I9",
            "an event that was lost",
            |it| [format!("update order_event set version = 2 where order_id = '{it}'")],
            legal,
        ),
    ]
}

pub(super) fn answers() -> Vec<Plant> {
    let plant = |what, violation: fn(Uuid) -> [String; 1]| Plant {
        invariant: "I6",
        what,
        schema: &order::SCHEMA,
        sound: about(1..=THINGS, placed),
        violation: about(WRONG, violation),
        wrong: WRONG.len(),
        look: |db| Box::pin(async move { order::check::check_answers(&db, OffsetDateTime::now_utc(), RANGE).await }),
    };
    vec![
        plant("an order that was made without a key", |it| {
            [format!("delete from idempotency where key = 'first {it}'")]
        }),
        plant("one order under two keys", |it| [answered("second", it)]),
        plant("an order that was answered and is not there", |it| {
            [format!(r#"delete from "order" where order_id = '{it}'"#)]
        }),
    ]
}

pub(super) fn letters() -> Vec<Plant> {
    let letter = "insert into dead_letter (consumer, key, topic, partition, partition_offset, event_id, version, type, payload,
          actor, occurred_at, error, created_at)
        values ('order', gen_random_uuid(), 'souk.payment.v1', 0, 0, gen_random_uuid(), 1, 'souk.payment.v1.PaymentVoided', '',
          'service:payment', now(), 'it cannot be', now())";
    vec![Plant {
        invariant: "I4",
        what: "a key that is parked",
        schema: &order::SCHEMA,
        sound: vec![],
        violation: all(&[letter]),
        wrong: 1,
        look: |db| Box::pin(async move { check_parked(&[&db]).await }),
    }]
}
