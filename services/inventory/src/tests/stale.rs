use std::time::Duration;

use chassis::Did;
use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use testkit::serve_orders;
use uuid::Uuid;

use super::Store;
use super::reservation::{cancelled, confirmed, placed};
use crate::stale::settle_stale;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_old_hold_is_settled_by_what_became_of_its_order(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Cancelled, 4).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;

    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Nothing, "it is not old");
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
    assert_eq!(store.level("MUG").await, (10, 0, 0));
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockReleased"]);

    // Its events come after all. They tell what the answer was ahead of, and neither change anything nor park the order.
    store.kit.deliver(confirmed(order)).await;
    store.kit.deliver(cancelled(order)).await;
    assert_eq!((store.level("MUG").await, store.kit.parked().await), ((10, 0, 0), 0));
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockReleased"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_goes_on_keeps_its_hold_and_is_asked_about_later(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Reserved, 2).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Nothing, "it was just asked");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(settle_stale(store.service.clone()).await.expect("asked"), Did::Something);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmed_order_sells_its_old_hold(db: PgPool) {
    let store = Store::open_with(db, serve_orders(OrderState::Confirmed, 3).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    settle_stale(store.service.clone()).await.expect("asked");
    assert_eq!(store.level("MUG").await, (6, 0, 4));
    store.kit.deliver(confirmed(order)).await;
    store.kit.deliver(cancelled(order)).await;
    assert_eq!(store.level("MUG").await, (10, 0, 0), "later events take effect");
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_orders_cannot_be_asked_a_hold_stays(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    store.kit.deliver(placed(Uuid::now_v7(), &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    let failed = settle_stale(store.service.clone()).await.expect_err("nobody answers");
    assert!(failed.will_pass(), "{failed}");
    settle_stale(store.service.clone()).await.expect_err("it is asked about until somebody answers");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
}
