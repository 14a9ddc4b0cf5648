//! I1, I4 and I9: units of stock, reservations and their histories.

use std::collections::HashMap;

use chassis::check::Exemptions;
use inventory::check::Holding;
use order::check::{Returned, Settled};
use sqlx::PgPool;
use uuid::Uuid;

use super::{RANGE, ROWS, WRONG, all, assert_each_found, assert_found, by_ranges, for_each};
use crate::orders::{compare_returns, compare_stock};

const UNGUARDED: &str = "alter table stock drop constraint stock_not_oversold, drop constraint stock_conserved";

async fn plant_in_stock(db: PgPool, violation: &[&str]) {
    let sound = "insert into stock (sku, available, received) values ('FINE', 5, 5), ('BAD', 5, 5)";
    assert_found(&db, all(&[sound]), all(violation), 1, async || inventory::check::check_stock(&db).await).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn stock_that_is_oversold(db: PgPool) {
    plant_in_stock(db, &[UNGUARDED, "update stock set available = -1, reserved = 6 where sku = 'BAD'"]).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn units_that_were_never_received(db: PgPool) {
    plant_in_stock(db, &[UNGUARDED, "update stock set available = 6 where sku = 'BAD'"]).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn reserved_units_without_a_reservation(db: PgPool) {
    plant_in_stock(db, &["update stock set available = 4, reserved = 1 where sku = 'BAD'"]).await;
}

/// A reservation whose units were sold, and its history.
pub(super) fn sold(order_id: Uuid) -> [String; 2] {
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

async fn plant_in_reservations(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let check = async || {
        let end = async |after| inventory::check::range_end(&db, after, RANGE).await;
        by_ranges(end, async |range| inventory::check::check_reservations(&db, range).await).await
    };
    assert_found(&db, for_each(1..=ROWS, sold), for_each(WRONG, violation), WRONG.len(), check).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn a_reservation_that_was_sold_after_its_release(db: PgPool) {
    plant_in_reservations(db, |it| {
        [format!("update reservation_history set state = 'RELEASED' where order_id = '{it}' and version = 1")]
    })
    .await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn a_reservation_that_began_as_sold(db: PgPool) {
    plant_in_reservations(db, |it| {
        [format!("delete from reservation_history where order_id = '{it}' and version = 1")]
    })
    .await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn a_reservation_without_a_history(db: PgPool) {
    plant_in_reservations(db, |it| [format!("delete from reservation_history where order_id = '{it}'")]).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn a_history_without_a_reservation(db: PgPool) {
    plant_in_reservations(db, |it| [format!("delete from reservation where order_id = '{it}'")]).await;
}

#[test]
fn an_order_and_its_stock_that_disagree() {
    let order = Uuid::from_u128(1);
    let check = |end, held: Option<Holding>| {
        let held = held.map(|holding| (order, holding)).into_iter().collect();
        compare_stock(&HashMap::from([(order, end)]), &held, &Exemptions::default())
    };
    let (sold, unsold) = (|| check(Settled::Sold, Some(Holding::Sold)), || check(Settled::Unsold, None));
    assert_each_found(vec![
        ("a confirmed order whose stock is only held", sold(), check(Settled::Sold, Some(Holding::Held))),
        ("a confirmed order without stock", sold(), check(Settled::Sold, None)),
        ("stock that is held for an unsold order", unsold(), check(Settled::Unsold, Some(Holding::Held))),
        ("stock that is sold to an unsold order", unsold(), check(Settled::Unsold, Some(Holding::Sold))),
    ]);
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn units_that_came_back_twice(db: PgPool) {
    let order = Uuid::from_u128(1);
    let [sold, _] = sold(order);
    let sound = [
        "insert into stock (sku, available, received) values ('FINE', 5, 5)".to_owned(),
        "insert into stock (sku, available, sold, received) values ('BAD', 2, 3, 5)".to_owned(),
        sold,
        format!("insert into reservation_line (order_id, sku, quantity, returned) values ('{order}', 'BAD', 4, 1)"),
    ];
    let violation = "update stock set available = 3, sold = 2 where sku = 'BAD'";
    assert_found(&db, sound.to_vec(), all(&[violation]), 1, async || inventory::check::check_stock(&db).await).await;
}

#[test]
fn returns_of_which_stock_or_money_do_not_know() {
    let order = Uuid::from_u128(1);
    let check = |units: i64, minor: i64| {
        let ours = HashMap::from([(order, Returned { units: 2, minor: 500 })]);
        compare_returns(&ours, &[(order, units)].into(), &[(order, minor)].into(), &Exemptions::default())
    };
    let (sound, none) = (|| check(2, 500), HashMap::new());
    let lost = compare_returns(
        &[(order, Returned { units: 2, minor: 500 })].into(),
        &none,
        &[(order, 500)].into(),
        &Exemptions::default(),
    );
    let never = |units| compare_returns(&[(order, Returned::default())].into(), &units, &none, &Exemptions::default());
    assert_each_found(vec![
        ("units that inventory did not take back", sound(), lost),
        ("units that came back twice", sound(), check(4, 500)),
        ("a return without a refund", sound(), check(2, 0)),
        ("a return that was refunded twice", sound(), check(2, 1_000)),
        ("units that came back without a return", never(none.clone()), never([(order, 1)].into())),
    ]);
}
