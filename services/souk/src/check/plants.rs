//! Violations of every invariant, for the check to find. Each begins with rows that are sound and must be found so, and then
//! plants what constraints and code are there to prevent: where a constraint would refuse it, it is taken away first.

use std::pin::Pin;

use chassis::db::Schema;
use chassis::{Finding, Unexpected, timestamp};
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::{Message, Name};
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::check_parked;
use super::secrets::Scan;

/// In the tables of one service.
pub(crate) struct Plant {
    pub(crate) invariant: &'static str,
    pub(crate) what: &'static str,
    pub(crate) schema: &'static Schema,
    pub(crate) sound: Vec<String>,
    pub(crate) violation: Vec<String>,
    pub(crate) look: Look,
}

pub(crate) type Look = fn(PgPool) -> Pin<Box<dyn Future<Output = Result<Finding, Unexpected>> + Send>>;

fn all(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|statement| (*statement).to_owned()).collect()
}

pub(crate) fn all_plants() -> Vec<Plant> {
    [stock(), reservations(), ledger(), payments(), orders(), answers(), letters(), secrets()]
        .into_iter()
        .flatten()
        .collect()
}

fn stock() -> Vec<Plant> {
    let sound = all(&["insert into stock (sku, available, received) values ('FINE', 5, 5), ('BAD', 5, 5)"]);
    let unguarded = "alter table stock drop constraint stock_not_oversold, drop constraint stock_conserved";
    let plant = |what, violation: &[&str]| Plant {
        invariant: "I1",
        what,
        schema: &inventory::SCHEMA,
        sound: sound.clone(),
        violation: all(violation),
        look: |db| Box::pin(async move { inventory::check::check_stock(&db).await }),
    };
    vec![
        plant(
            "stock that is oversold",
            &[unguarded, "update stock set available = -1, reserved = 6 where sku = 'BAD'"],
        ),
        plant("units that came from nowhere", &[unguarded, "update stock set available = 6 where sku = 'BAD'"]),
        plant("units that nobody reserved", &["update stock set available = 4, reserved = 1 where sku = 'BAD'"]),
    ]
}

const RESERVATION: &str = "insert into reservation (order_id, state, version, created_at, updated_at, checked_at)
    values ('00000000-0000-7000-8000-000000000001', 'SOLD', 2, now(), now(), now())";
const RESERVATION_HISTORY: &str = "insert into reservation_history (order_id, version, state, at)
    values ('00000000-0000-7000-8000-000000000001', 1, 'HELD', now()),
           ('00000000-0000-7000-8000-000000000001', 2, 'SOLD', now())";

fn reservations() -> Vec<Plant> {
    let plant = |what, violation| Plant {
        invariant: "I9",
        what,
        schema: &inventory::SCHEMA,
        sound: all(&[RESERVATION, RESERVATION_HISTORY]),
        violation: all(&[violation]),
        look: |db| Box::pin(async move { inventory::check::check_reservations(&db).await }),
    };
    vec![
        plant(
            "a reservation that came back to life",
            "update reservation_history set state = 'RELEASED' where version = 1",
        ),
        plant("a reservation that began as sold", "delete from reservation_history where version = 1"),
        plant("a reservation without a history", "delete from reservation_history"),
    ]
}

const PAYMENT: &str = "insert into payment
      (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor, refunded_minor,
       refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts, created_at, updated_at)
    values ('00000000-0000-7000-8000-000000000001', gen_random_uuid(), gen_random_uuid(), 'CAPTURED', 'CAPTURED', 'EUR', 100,
       'pm_card_visa', 100, 0, 0, '', 2, gen_random_uuid(), now(), 0, now(), now())";
const LEDGER: &str = "insert into ledger_transfer
      (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
    values ('00000000-0000-7000-8000-000000000001', 'AUTHORIZATION', 'customer', 'held', 'EUR', 100, 'pi_1', now()),
           ('00000000-0000-7000-8000-000000000001', 'CAPTURE', 'held', 'revenue', 'EUR', 100, 'pi_1', now())";

fn ledger() -> Vec<Plant> {
    let plant = |what, violation: &[&str]| Plant {
        invariant: "I3",
        what,
        schema: &payment::SCHEMA,
        sound: all(&[PAYMENT, LEDGER]),
        violation: all(violation),
        look: |db| Box::pin(async move { payment::check::check_ledger(&db).await }),
    };
    let transfer = |kind: &str, from: &str, currency: &str, minor: i64| {
        format!(
            "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
             values ('00000000-0000-7000-8000-000000000001', '{kind}', '{from}', 'elsewhere', '{currency}', {minor}, 'x', now())"
        )
    };
    let refund = |state: &str| {
        format!(
            "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
             values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 1, '{state}', '', '', 1, now(), now())"
        )
    };
    vec![
        plant(
            "money that the ledger does not know",
            &["alter table ledger_transfer disable trigger all", "delete from ledger_transfer where kind = 'CAPTURE'"],
        ),
        plant("more given back than was captured", &[&transfer("REFUND", "revenue", "EUR", 101)]),
        plant("more let go than was held", &[&transfer("VOID", "held", "EUR", 1)]),
        plant("a refund that reserves nothing", &[&refund("PENDING")]),
        plant("a refund that the ledger does not know", &[&refund("DONE")]),
        plant("money of another currency", &[&transfer("AUTHORIZATION", "customer", "USD", 1)]),
    ]
}

fn payments() -> Vec<Plant> {
    let history = "insert into payment_history (payment_id, state, at)
        select '00000000-0000-7000-8000-000000000001', state, now()
        from unnest(array['PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'CAPTURED']) as state";
    let plant = |what, violation| Plant {
        invariant: "I9",
        what,
        schema: &payment::SCHEMA,
        sound: all(&[PAYMENT, history]),
        violation: all(&[violation]),
        look: |db| Box::pin(async move { payment::check::check_payments(&db).await }),
    };
    vec![
        plant("a payment that skipped a step", "delete from payment_history where state like 'AUTHORIZ%'"),
        plant("a payment without a history", "delete from payment_history"),
    ]
}

/// An order of two minutes ago that was placed and has three minutes left, the event that says so and the answer that was
/// given.
fn placed() -> Vec<String> {
    let (order_id, user_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
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
    let answer = CreateOrderResponse { order: Some(Order { order_id: order_id.to_string(), ..Default::default() }) };
    vec![
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
        answered("k1", &answer),
    ]
}

fn bytes(message: &impl Message) -> String {
    let hex: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r"'\x{hex}'::bytea")
}

fn answered(key: &str, answer: &CreateOrderResponse) -> String {
    let (method, response) = (CreateOrderRequest::full_name(), bytes(answer));
    format!(
        "insert into idempotency (caller, method, key, request_hash, response, created_at)
         values ('somebody', '{method}', '{key}', '', {response}, now())"
    )
}

fn orders() -> Vec<Plant> {
    let plant = |invariant, what, violation: &[&str], look: Look| Plant {
        invariant,
        what,
        schema: &order::SCHEMA,
        sound: placed(),
        violation: all(violation),
        look,
    };
    let settled: Look = |db| Box::pin(async move { order::check::check_settled(&db, OffsetDateTime::now_utc()).await });
    let legal: Look = |db| Box::pin(async move { order::check::check_orders(&db).await });
    vec![
        plant(
            "I4",
            "an order that never settled",
            &[r#"update "order" set expires_at = now() - interval '2 minutes'"#],
            settled,
        ),
        plant(
            "I4",
            "an order that was confirmed and never paid",
            &[r#"update "order" set state = 'CONFIRMED'"#],
            settled,
        ),
        plant("I9", "an order that is not what its events say", &[r#"update "order" set state = 'CONFIRMED'"#], legal),
        plant("I9", "an order without events", &["delete from order_event"], legal),
        plant("I9", "events without an order", &[r#"delete from "order""#], legal),
        plant("I9", "an event that was lost", &["update order_event set version = 2"], legal),
    ]
}

fn answers() -> Vec<Plant> {
    let plant = |what, violation| Plant {
        invariant: "I6",
        what,
        schema: &order::SCHEMA,
        sound: placed(),
        violation: vec![violation],
        look: |db| Box::pin(async move { order::check::check_answers(&db, OffsetDateTime::now_utc()).await }),
    };
    let gone = Order { order_id: Uuid::from_u128(3).to_string(), ..Default::default() };
    vec![
        plant("an order that was made without a key", "delete from idempotency".to_owned()),
        plant(
            "one order under two keys",
            "insert into idempotency select caller, method, 'k2', request_hash, response, created_at from idempotency"
                .to_owned(),
        ),
        plant(
            "an order that was answered and is not there",
            answered("k2", &CreateOrderResponse { order: Some(gone) }),
        ),
    ]
}

fn letters() -> Vec<Plant> {
    let letter = "insert into dead_letter (consumer, key, topic, partition, partition_offset, event_id, version, type, payload,
          actor, occurred_at, error, created_at)
        values ('order', gen_random_uuid(), 'souk.payment.v1', 0, 0, gen_random_uuid(), 1, 'souk.payment.v1.PaymentVoided', '',
          'service:payment', now(), 'it cannot be', now())";
    vec![Plant {
        invariant: "I4",
        what: "a key that is parked",
        schema: &order::SCHEMA,
        sound: placed(),
        violation: all(&[letter]),
        look: |db| Box::pin(async move { check_parked(&[&db]).await }),
    }]
}

/// What a refresh token may look like, and the hash that is kept of it.
const TOKEN: &str = "c29tZSByYW5kb20gYnl0ZXMsIHdlbGwga25vd24uLi4";

fn secrets() -> Vec<Plant> {
    let account = "insert into account
          (user_id, email, password_hash, display_name, role, version, created_at, updated_at)
        values ('00000000-0000-7000-8000-000000000001', 'ada@example.com', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA', 'Ada',
          'CUSTOMER', 1, now(), now())";
    let session = format!(
        "insert into session (session_id, user_id, refresh_hash, created_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', sha256('{TOKEN}'), now())"
    );
    let plant = |what, violation: String| Plant {
        invariant: "I11",
        what,
        schema: &user::SCHEMA,
        sound: vec![account.to_owned(), session.clone()],
        violation: vec![violation],
        look: |db| {
            Box::pin(async move {
                let mut scan = Scan::begin(&db).await?;
                scan.database("user", &db).await?;
                Ok(scan.finding)
            })
        },
    };
    let named = |text: &str| format!("update account set display_name = '{text}'");
    let told = |text: &str| {
        format!(
            "insert into outbox (event_id, topic, key, version, type, payload, actor, created_at)
             values (gen_random_uuid(), 'souk.user.v1', gen_random_uuid(), 1, 'souk.user.v1.UserRegistered',
               '\\x0a'::bytea || convert_to('{text}', 'UTF8') || '\\x12', 'anonymous', now())"
        )
    };
    let mut plants = vec![
        plant("a card number in a text", named("Ada, 4242 4242 4242 4242")),
        plant("a card number in an event", told("4242424242424242")),
        plant("a password hash out of its column", named("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA")),
        plant("an access token", named("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIwMTkyIn0.c2lnbmF0dXJl")),
        plant("a refresh token", told(TOKEN)),
    ];
    let address = "insert into order_shipping_address (order_id, recipient, lines, city, postal_code, country)
        values ('00000000-0000-0000-0000-000000000001', 'Ada', '{ada@example.com}', 'London', '', 'GB')";
    plants.push(Plant {
        invariant: "I11",
        what: "an e-mail address out of the account",
        schema: &order::SCHEMA,
        sound: [placed(), all(&[address])].concat(),
        violation: all(&[r#"update "order" set carrier = 'ask ada@example.com'"#]),
        look: |db| {
            Box::pin(async move {
                let mut scan = Scan::default();
                scan.database("order", &db).await?;
                Ok(scan.finding)
            })
        },
    });
    plants
}
