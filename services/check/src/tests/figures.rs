//! I12: orders and figures.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chassis::check::{Exemptions, Finding};
use sqlx::PgPool;
use uuid::Uuid;

use super::{all, assert_each_found, assert_found, execute, for_each};
use crate::orders::{compare_sales, compare_stages};

/// An order that is counted as placed.
pub(super) fn counted(order_id: Uuid) -> [String; 1] {
    [format!(
        "insert into counted_order (projection_id, order_id, version, placed_at, stages, lines)
         select projection_id, '{order_id}', 1, now(), 1, '' from projection where state = 'LIVE'"
    )]
}

fn compare(reached: &[(&str, bool)], counted: &[&'static str]) -> Finding {
    let order = Uuid::from_u128(1);
    let reached = reached.iter().map(|(stage, is_old)| ((*stage).to_owned(), *is_old)).collect::<HashMap<_, _>>();
    let counted = counted.iter().copied().collect::<BTreeSet<_>>();
    compare_stages(&HashMap::from([(order, reached)]), &HashMap::from([(order, counted)]), &Exemptions::default())
}

#[test]
fn an_order_and_its_figures_that_disagree() {
    let sound = || compare(&[("PLACED", true), ("CONFIRMED", false)], &["PLACED"]);
    assert_each_found(vec![
        ("an event that is not counted", sound(), compare(&[("PLACED", true), ("CONFIRMED", true)], &["PLACED"])),
        ("a stage that was not reached", sound(), compare(&[("PLACED", true)], &["PLACED", "PAID"])),
        ("an order that does not exist", sound(), compare(&[], &["PLACED"])),
    ]);
}

#[test]
fn sales_that_are_not_those_of_the_orders() {
    let euros = |figures| BTreeMap::from([("EUR".to_owned(), figures)]);
    let sound = || compare_sales(&euros([2, 300, 50]), &euros([2, 300, 50]));
    assert_each_found(vec![
        ("a refund that is not counted", sound(), compare_sales(&euros([2, 300, 50]), &euros([2, 300, 0]))),
        ("sales of nothing", sound(), compare_sales(&BTreeMap::new(), &euros([1, 100, 0]))),
        ("no sales", sound(), compare_sales(&euros([1, 100, 0]), &BTreeMap::new())),
    ]);
}

#[sqlx::test(migrator = "analytics::MIGRATOR")]
async fn sums_that_are_not_those_of_the_counted_orders(db: PgPool) {
    let live = "from projection where state = 'LIVE'";
    let quarter = "date_trunc('hour', now())";
    let sound = [
        for_each(1..=3, counted),
        vec![
            "update counted_order set stages = 15".to_owned(),
            format!(
                "insert into funnel (projection_id, quarter, stage, reason, orders)
                 select projection_id, {quarter}, stage, '', 3
                 from unnest(array['PLACED', 'RESERVED', 'CONFIRMED', 'PAID']) as stage, projection where state = 'LIVE'"
            ),
            format!(
                "insert into confirmation_time (projection_id, quarter, bucket, orders)
                 select projection_id, {quarter}, 1, 3 {live}"
            ),
            format!(
                "insert into sales (projection_id, quarter, currency, paid_orders, gross, refunded)
                 select projection_id, {quarter}, 'EUR', 3, 300, 0 {live}"
            ),
            format!(
                "insert into product_sales (projection_id, quarter, product_id, currency, sku, title, orders, units, gross)
                 select projection_id, {quarter}, gen_random_uuid(), 'EUR', '', '', 3, 3, 300 {live}"
            ),
            // Another projection counts nothing yet.
            "insert into projection (state, created_at) values ('BUILDING', now())".to_owned(),
        ],
    ];
    execute(&db, sound.concat()).await;
    for (violation, repair, wrong) in [
        ("update funnel set orders = 4 where stage = 'PAID'", "update funnel set orders = 3", 1),
        ("update confirmation_time set orders = 2", "update confirmation_time set orders = 3", 1),
        ("update sales set paid_orders = 4, gross = 400", "update sales set paid_orders = 3, gross = 300", 2),
        ("update product_sales set currency = 'USD'", "update product_sales set currency = 'EUR'", 2),
        (
            "update counted_order set stages = 7 where order_id::text like '%1'",
            "update counted_order set stages = 15",
            0,
        ),
    ] {
        assert_found(&db, vec![], all(&[violation]), wrong, async || analytics::check::check_sums(&db).await).await;
        execute(&db, all(&[repair])).await;
    }
}
