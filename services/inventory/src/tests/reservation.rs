use contracts::souk::inventory::v1::*;
use sqlx::PgPool;
use testkit::reason;
use uuid::Uuid;

use super::{Store, cancelled, confirmed, placed};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_holds_sells_and_gives_back(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    for (record, level) in
        [(placed(order, &[("MUG", 4)]), (6, 4, 0)), (confirmed(order), (6, 0, 4)), (cancelled(order), (10, 0, 0))]
    {
        store.hear(record.clone()).await;
        assert_eq!(store.level("MUG").await, level, "{}", record.kind);
        store.hear(record).await;
        assert_eq!(store.level("MUG").await, level, "twice is once");
    }
    assert_eq!(store.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_lines_are_held_or_none(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    store.receive("k2", "CUP", 1).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 1), ("CUP", 2), ("GONE", 1)])).await;
    assert_eq!((store.level("MUG").await, store.level("CUP").await), ((10, 0, 0), (1, 0, 0)));
    assert_eq!(store.published(order).await, ["StockRejected"]);
    store.hear(cancelled(order)).await;
    assert_eq!(store.published(order).await, ["StockRejected"], "nothing was held, nothing goes back");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_end_that_comes_first_bars_the_hold(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(cancelled(order)).await;
    let mut late = placed(order, &[("MUG", 4)]);
    late.version = 5;
    store.hear(late).await;
    assert_eq!(store.level("MUG").await, (10, 0, 0));
    assert_eq!(store.published(order).await, Vec::<String>::new());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmation_without_a_hold_parks_its_order_only(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let (odd, fine) = (Uuid::now_v7(), Uuid::now_v7());
    store.hear(confirmed(odd)).await;
    store.hear(placed(fine, &[("MUG", 1)])).await;
    assert_eq!((store.parked().await, store.level("MUG").await), (1, (9, 1, 0)));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_many_orders_for_the_last_unit_one_gets_it(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 1).await.expect("received");
    let orders: Vec<_> = (0..16).map(|_| Uuid::now_v7()).collect();
    let mut crowd = tokio::task::JoinSet::new();
    for order in orders.clone() {
        let (consumer, clock) = (store.consumer.clone(), store.kit.context.clock.clone());
        crowd.spawn(async move { testkit::hear(&consumer, &clock, &[placed(order, &[("MUG", 1)])]).await });
    }
    crowd.join_all().await;
    assert_eq!(store.level("MUG").await, (0, 1, 0));
    let mut held = 0;
    for order in orders {
        held += usize::from(store.published(order).await == ["StockReserved"]);
    }
    assert_eq!(held, 1);
}

/// Orders over the same two goods, their events interleaved at random and each told twice: the table's own checks refuse
/// any moment in which units were lost or invented, and in the end everything adds up.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn units_are_conserved_whatever_the_order_of_events(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 25).await.expect("received");
    store.receive("k2", "CUP", 25).await.expect("received");
    let mut stories: Vec<_> = (0..40_u64)
        .map(|n| {
            let order = Uuid::from_u128(u128::from(n + 1));
            let start = placed(order, &[("MUG", 1 + (n % 3) as i32), ("CUP", 1 + (n % 2) as i32)]);
            // Some are confirmed only if they got their goods, which the order service sees to; here, those that end.
            if n % 2 == 0 { vec![start, cancelled(order)] } else { vec![start] }
        })
        .collect();
    let mut seed = 0x5eed_u64;
    while !stories.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 33) as usize % stories.len();
        let record = stories[at].remove(0);
        store.hear(record.clone()).await;
        store.hear(record).await;
        if stories[at].is_empty() {
            stories.swap_remove(at);
        }
    }
    let held = sqlx::query!(
        r#"select sku, sum(quantity) as "held!" from reservation_line join reservation using (order_id)
           where state = 'HELD' group by sku"#,
    );
    for row in held.fetch_all(&store.db).await.expect("sums") {
        let (available, reserved, sold) = store.level(&row.sku).await;
        assert_eq!((reserved, available + reserved + sold), (row.held, 25), "{}", row.sku);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn operators_see_reservations(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.hear(placed(order, &[("MUG", 4)])).await;
    let ask = |order: Uuid| store.kit.operator(GetReservationRequest { order_id: order.to_string() });
    let found = store.client.clone().get_reservation(ask(order)).await.expect("there").into_inner().reservation;
    let found = found.expect("a reservation");
    assert_eq!(found.state(), ReservationState::Held);
    assert_eq!(found.lines, [ReservationLine { sku: "MUG".into(), quantity: 4 }]);
    let none = store.client.clone().get_reservation(ask(Uuid::now_v7())).await.expect_err("none");
    assert_eq!(reason(&none), "RESERVATION_NOT_FOUND@souk.inventory");
}
