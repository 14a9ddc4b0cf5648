//! I1, I4 and I9: units of stock, reservations and their histories.

use std::collections::HashMap;

use ReturnDisposition::{Restock, WriteOff};
use chassis::check::{Exemptions, Range};
use contracts::souk::order::v1::ReturnDisposition;
use inventory::check::{Holding, Units};
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

fn units<const N: usize>(all: [(&str, ReturnDisposition, i64); N]) -> Units {
    all.into_iter().map(|(sku, disposition, count)| ((sku.to_owned(), disposition), count)).collect()
}

#[test]
fn returns_of_which_stock_or_money_do_not_know() {
    let order = Uuid::from_u128(1);
    let ours = Returned { units: units([("CUP", Restock, 1), ("MUG", WriteOff, 2)]), minor: 500 };
    let check = |theirs: Option<Units>, minor: i64| {
        let theirs = theirs.map(|units| (order, units)).into_iter().collect();
        compare_returns(&[(order, ours.clone())].into(), &theirs, &[(order, minor)].into(), &Exemptions::default())
    };
    let sound = || check(Some(ours.units.clone()), 500);
    let with = |theirs: Units| check(Some(theirs), 500);
    let never = |theirs: HashMap<Uuid, Units>| {
        let ours = [(order, Returned::default())].into();
        compare_returns(&ours, &theirs, &HashMap::new(), &Exemptions::default())
    };
    assert_each_found(vec![
        ("units that inventory did not take back", sound(), check(None, 500)),
        ("units that came back twice", sound(), with(units([("CUP", Restock, 1), ("MUG", WriteOff, 4)]))),
        ("units that were swapped", sound(), with(units([("CUP", Restock, 2), ("MUG", WriteOff, 1)]))),
        ("restocked units that were unsaleable", sound(), with(units([("CUP", Restock, 1), ("MUG", Restock, 2)]))),
        ("a return without a refund", sound(), check(Some(ours.units.clone()), 0)),
        ("a return that was refunded twice", sound(), check(Some(ours.units.clone()), 1_000)),
        (
            "units that came back without a return",
            never(HashMap::new()),
            never([(order, units([("MUG", Restock, 1)]))].into()),
        ),
    ]);
}

/// Each line of a sold order of which units came back, and their movements.
async fn plant_in_movements(db: PgPool, violation: &str) {
    let order = Uuid::from_u128(1);
    let [sold, _] = sold(order);
    let sound = [
        sold,
        format!(
            "insert into reservation_line (order_id, sku, quantity, returned)
             values ('{order}', 'CUP', 2, 1), ('{order}', 'MUG', 3, 2)"
        ),
        format!(
            "insert into stock_movement (sku, reason, units, actor, order_id, at)
             values ('CUP', 'RETURNED', 1, '', '{order}', now()), ('MUG', 'RETURNED', 1, '', '{order}', now()),
               ('MUG', 'RETURNED_UNSALEABLE', 1, '', '{order}', now()), ('MUG', 'DAMAGE', -1, '', null, now())"
        ),
    ];
    let ours = units([("CUP", Restock, 1), ("MUG", Restock, 1), ("MUG", WriteOff, 1)]);
    let ours = [(order, Returned { units: ours, minor: 0 })].into();
    let check = async || {
        let theirs = inventory::check::returned(&db, Range::ALL).await?;
        Ok(compare_returns(&ours, &theirs, &HashMap::new(), &Exemptions::default()))
    };
    assert_found(&db, sound.to_vec(), all(&[violation]), 1, check).await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn unsaleable_units_that_were_restocked(db: PgPool) {
    plant_in_movements(db, "update stock_movement set reason = 'RETURNED'").await;
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn returned_units_of_a_line_without_a_movement(db: PgPool) {
    plant_in_movements(db, "update reservation_line set returned = 2 where sku = 'CUP'").await;
}
