//! Violations of every invariant, for the check to find. Each begins with rows that are sound and must be found so, and then
//! plants what constraints and code are there to prevent: where a constraint would refuse it, it is taken away first.
//!
//! What is read by ranges is planted on both sides of where one ends: there are [`THINGS`], and a range has [`RANGE`].

mod orders;

use std::pin::Pin;

use chassis::Unexpected;
use chassis::boot::db::Schema;
use chassis::check::{Finding, Range};
use sqlx::PgPool;
use uuid::Uuid;

use super::secrets::Scan;
use orders::{answers, letters, orders};

pub(crate) use orders::placed;

pub(crate) const RANGE: i64 = 3;
const THINGS: u128 = 7;
/// The last of a range, and the first of the next.
pub(crate) const WRONG: [u128; 2] = [3, 4];

/// In the tables of one service.
pub(crate) struct Plant {
    pub(crate) invariant: &'static str,
    pub(crate) what: &'static str,
    pub(crate) schema: &'static Schema,
    pub(crate) sound: Vec<String>,
    pub(crate) violation: Vec<String>,
    /// How many things must be found.
    pub(crate) wrong: usize,
    pub(crate) look: Look,
}

pub(crate) type Look = fn(PgPool) -> Pin<Box<dyn Future<Output = Result<Finding, Unexpected>>>>;

fn all(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|statement| (*statement).to_owned()).collect()
}

/// The same about each of these things.
pub(crate) fn about<const N: usize>(
    things: impl IntoIterator<Item = u128>,
    statements: impl Fn(Uuid) -> [String; N],
) -> Vec<String> {
    things.into_iter().map(id).flat_map(statements).collect()
}

/// One made in each second since 1970.
pub(crate) fn id(thing: u128) -> Uuid {
    Uuid::from_u128((thing * 1_000) << 80 | 0x7000_8000_0000_0000_0000)
}

async fn walk(
    end: impl AsyncFn(Uuid) -> Result<Option<Uuid>, Unexpected>,
    look: impl AsyncFn(Range) -> Result<Finding, Unexpected>,
) -> Result<Finding, Unexpected> {
    let range = Range::to_first(Uuid::nil(), [end(Uuid::nil()).await?]);
    let (mut finding, mut next) = (look(range).await?, range.next());
    while let Some(after) = next {
        let range = Range::to_first(after, [end(after).await?]);
        finding.absorb(look(range).await?);
        next = range.next();
    }
    Ok(finding)
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
        wrong: 1,
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

pub(crate) fn sold(order_id: Uuid) -> [String; 2] {
    [
        format!(
            "insert into reservation (order_id, state, version, created_at, updated_at, checked_at)
             values ('{order_id}', 'SOLD', 2, now(), now(), now())"
        ),
        format!(
            "insert into reservation_history (order_id, version, state, at)
             values ('{order_id}', 1, 'HELD', now()), ('{order_id}', 2, 'SOLD', now())"
        ),
    ]
}

fn reservations() -> Vec<Plant> {
    let sound = about(1..=THINGS, sold);
    let plant = |what, violation: fn(Uuid) -> [String; 1]| Plant {
        invariant: "I9",
        what,
        schema: &inventory::SCHEMA,
        sound: sound.clone(),
        violation: about(WRONG, violation),
        wrong: WRONG.len(),
        look: |db| {
            Box::pin(async move {
                let end = |after| inventory::check::range_end(&db, after, RANGE);
                walk(end, |range| inventory::check::check_reservations(&db, range)).await
            })
        },
    };
    vec![
        plant("a reservation that came back to life", |it| {
            [format!("update reservation_history set state = 'RELEASED' where order_id = '{it}' and version = 1")]
        }),
        plant("a reservation that began as sold", |it| {
            [format!("delete from reservation_history where order_id = '{it}' and version = 1")]
        }),
        plant("a reservation without a history", |it| {
            [format!("delete from reservation_history where order_id = '{it}'")]
        }),
        plant("a history without a reservation", |it| [format!("delete from reservation where order_id = '{it}'")]),
    ]
}

fn payment(it: Uuid) -> String {
    format!(
        "insert into payment
           (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor, refunded_minor,
            refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts, created_at, updated_at)
         values ('{it}', '{it}', gen_random_uuid(), 'CAPTURED', 'CAPTURED', 'EUR', 100, 'pm_card_visa', 100, 0, 0, '', 2,
            gen_random_uuid(), now(), 0, now(), now())"
    )
}

fn transfer(it: Uuid, kind: &str, from: &str, currency: &str, minor: i64) -> String {
    format!(
        "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ('{it}', '{kind}', '{from}', 'elsewhere', '{currency}', {minor}, 'x{minor}', now())"
    )
}

fn refund(it: Uuid, state: &str) -> String {
    format!(
        "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
         values (gen_random_uuid(), '{it}', 1, '{state}', '', '', 1, now(), now())"
    )
}

pub(crate) fn paid(it: Uuid) -> [String; 3] {
    let (held, captured) =
        (transfer(it, "AUTHORIZATION", "x", "EUR", 100), transfer(it, "CAPTURE", "held", "EUR", 100));
    [payment(it), held, captured]
}

fn ledger() -> Vec<Plant> {
    let sound = about(1..=THINGS, paid);
    let plant = |what, violation: Vec<String>| Plant {
        invariant: "I3",
        what,
        schema: &payment::SCHEMA,
        sound: sound.clone(),
        violation,
        wrong: WRONG.len(),
        look: |db| {
            Box::pin(async move {
                let end = |after| payment::check::range_end(&db, after, RANGE);
                walk(end, |range| payment::check::check_ledger(&db, range)).await
            })
        },
    };
    let forget = |it| {
        let delete = format!("delete from ledger_transfer where payment_id = '{it}' and kind = 'CAPTURE'");
        ["alter table ledger_transfer disable trigger all".to_owned(), delete]
    };
    let each = |violation: fn(Uuid) -> String| about(WRONG, |it| [violation(it)]);
    vec![
        plant("money that the ledger does not know", about(WRONG, forget)),
        plant("more given back than was captured", each(|it| transfer(it, "REFUND", "revenue", "EUR", 101))),
        plant("more let go than was held", each(|it| transfer(it, "VOID", "held", "EUR", 1))),
        plant("a refund that reserves nothing", each(|it| refund(it, "PENDING"))),
        plant("a refund that the ledger does not know", each(|it| refund(it, "DONE"))),
        plant("money of another currency", each(|it| transfer(it, "AUTHORIZATION", "x", "USD", 1))),
    ]
}

fn payments() -> Vec<Plant> {
    let history = |it| {
        format!(
            "insert into payment_history (payment_id, state, at) select '{it}', state, now()
             from unnest(array['PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'CAPTURED']) as state"
        )
    };
    let plant = |what, violation: fn(Uuid) -> [String; 1]| Plant {
        invariant: "I9",
        what,
        schema: &payment::SCHEMA,
        sound: about(1..=THINGS, |it| [payment(it), history(it)]),
        violation: about(WRONG, violation),
        wrong: WRONG.len(),
        look: |db| {
            Box::pin(async move {
                let end = |after| payment::check::history_end(&db, after, RANGE);
                walk(end, |range| payment::check::check_payments(&db, range)).await
            })
        },
    };
    vec![
        plant("a payment that skipped a step", |it| {
            [format!("delete from payment_history where payment_id = '{it}' and state like 'AUTHORIZ%'")]
        }),
        plant("a payment without a history", |it| [format!("delete from payment_history where payment_id = '{it}'")]),
        plant("a history without a payment", |it| [format!("delete from payment where payment_id = '{it}'")]),
    ]
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
        wrong: 1,
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
    let address = r#"insert into order_shipping_address (order_id, recipient, lines, city, postal_code, country)
        select order_id, 'Ada', '{ada@example.com}', 'London', '', 'GB' from "order""#;
    plants.push(Plant {
        invariant: "I11",
        what: "an e-mail address out of the account",
        schema: &order::SCHEMA,
        sound: [about([1], placed), all(&[address])].concat(),
        violation: all(&[r#"update "order" set carrier = 'ask ada@example.com'"#]),
        wrong: 1,
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
