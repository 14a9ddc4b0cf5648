//! I11: card numbers, password hashes, tokens and e-mail addresses where they must not be.

use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use sqlx::PgPool;

use super::orders::{bytes, placed};
use super::{all, assert_found, for_each};
use crate::secrets::Scan;

const PASSWORD_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA";
/// A refresh token, whose hash the session has.
const REFRESH_TOKEN: &str = "c29tZSByYW5kb20gYnl0ZXMsIHdlbGwga25vd24uLi4tc29tZSByYW5kb20gYnl0";

async fn plant_in_accounts(db: PgPool, violation: String) {
    let account = format!(
        "insert into account
           (user_id, email, password_hash, display_name, role, version, created_at, updated_at)
         values ('00000000-0000-7000-8000-000000000001', 'ada@example.com', '{PASSWORD_HASH}', 'Ada', 'CUSTOMER', 1, now(),
           now())"
    );
    let session = format!(
        "insert into session (session_id, user_id, refresh_hash, created_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', sha256('{REFRESH_TOKEN}'), now())"
    );
    let check = async || {
        let mut scan = Scan::begin(&db).await?;
        scan.database("user", &db).await?;
        Ok(scan.finding)
    };
    assert_found(&db, vec![account, session], vec![violation], 1, check).await;
}

fn as_a_name(text: &str) -> String {
    format!("update account set display_name = '{text}'")
}

fn in_an_event(text: &str) -> String {
    format!(
        "insert into outbox (event_id, topic, key, version, type, payload, actor, created_at)
         values (gen_random_uuid(), 'souk.user.v1', gen_random_uuid(), 1, 'souk.user.v1.UserRegistered',
           '\\x0a'::bytea || convert_to('{text}', 'UTF8') || '\\x12', 'anonymous', now())"
    )
}

#[sqlx::test(migrator = "user::MIGRATOR")]
async fn a_card_number_in_a_text(db: PgPool) {
    plant_in_accounts(db, as_a_name("Ada, 4242 4242 4242 4242")).await;
}

#[sqlx::test(migrator = "user::MIGRATOR")]
async fn a_card_number_in_an_event(db: PgPool) {
    plant_in_accounts(db, in_an_event("4242424242424242")).await;
}

#[sqlx::test(migrator = "user::MIGRATOR")]
async fn a_password_hash_outside_its_column(db: PgPool) {
    plant_in_accounts(db, as_a_name(PASSWORD_HASH)).await;
}

#[sqlx::test(migrator = "user::MIGRATOR")]
async fn an_access_token(db: PgPool) {
    plant_in_accounts(db, as_a_name("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIwMTkyIn0.c2lnbmF0dXJl")).await;
}

#[sqlx::test(migrator = "user::MIGRATOR")]
async fn a_refresh_token(db: PgPool) {
    plant_in_accounts(db, in_an_event(REFRESH_TOKEN)).await;
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_email_address_outside_account_and_shipping_address(db: PgPool) {
    let address = r#"insert into order_shipping_address (order_id, recipient, lines, city, postal_code, country)
        select order_id, 'Ada', '{ada@example.com}', 'London', '', 'GB' from "order""#;
    let sound = [for_each([1], placed), all(&[address])].concat();
    let violation = all(&[r#"update "order" set carrier = 'ask ada@example.com'"#]);
    let check = async || {
        let mut scan = Scan::default();
        scan.database("order", &db).await?;
        Ok(scan.finding)
    };
    assert_found(&db, sound, violation, 1, check).await;
}

/// The number of a parcel with as many digits and the check digit of a card.
const TRACKING_NUMBER: &str = "403934084723025";

fn fulfilled(carrier: &str) -> String {
    let sent = OrderFulfilled {
        carrier: carrier.to_owned(),
        tracking_number: TRACKING_NUMBER.to_owned(),
        ..Default::default()
    };
    bytes(&OrderEvent { event: Some(Event::OrderFulfilled(sent)), ..Default::default() })
}

fn stored_response(carrier: &str) -> String {
    let shipment =
        Shipment { carrier: carrier.to_owned(), tracking_number: TRACKING_NUMBER.to_owned(), ..Default::default() };
    let (shipment, shipments) = (Some(shipment.clone()), vec![shipment]);
    bytes(&FulfillOrderResponse { order: Some(Order { shipment, shipments, ..Default::default() }) })
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn a_card_number_beside_a_tracking_number(db: PgPool) {
    let recorded = [
        format!(r#"update "order" set tracking_number = '{TRACKING_NUMBER}'"#),
        format!(
            r#"insert into order_shipment (order_id, number, carrier, tracking_number, product_ids, quantities, shipped_at)
               select order_id, 1, 'Carrier', '{TRACKING_NUMBER}', array[order_id], array[1], now() from "order""#
        ),
        format!("update order_event set payload = {}", fulfilled("Carrier")),
        format!("update idempotency set response = {}", stored_response("Carrier")),
    ];
    let sound = [for_each([1], placed), recorded.to_vec()].concat();
    let violation = vec![
        format!("update order_event set payload = {}", fulfilled("4242424242424242")),
        format!("update idempotency set response = {}", stored_response("4242424242424242")),
    ];
    let check = async || {
        let mut scan = Scan::default();
        scan.database("order", &db).await?;
        Ok(scan.finding)
    };
    assert_found(&db, sound, violation, 2, check).await;
}
