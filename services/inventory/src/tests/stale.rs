use std::time::Duration;

use chassis::Did;
use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use testkit::serve_orders;
use uuid::Uuid;

use super::Store;
use super::reservation::{cancelled, confirmed, placed};
use crate::stale::apply_order_states;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_old_hold_follows_the_state_of_its_order(db: PgPool) {
    let store = Store::open_with(db, serve_orders(roster::INVENTORY, OrderState::Cancelled, 4).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;

    assert_eq!(apply_order_states(store.service.clone()).await.expect("applied"), Did::Nothing, "it is not old");
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(store.service.clone()).await.expect("applied"), Did::Something);
    assert_eq!(store.level("MUG").await, (10, 0, 0));
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockReleased"]);

    // Its events arrive later than the state: they change nothing, and do not park the order.
    store.kit.deliver(confirmed(order)).await;
    store.kit.deliver(cancelled(order)).await;
    assert_eq!((store.level("MUG").await, store.kit.parked().await), ((10, 0, 0), 0));
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockReleased"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_in_progress_keeps_its_hold_and_is_checked_later(db: PgPool) {
    let store = Store::open_with(db, serve_orders(roster::INVENTORY, OrderState::Reserved, 2).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(store.service.clone()).await.expect("applied"), Did::Something);
    assert_eq!(apply_order_states(store.service.clone()).await.expect("applied"), Did::Nothing, "it was just checked");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(store.service.clone()).await.expect("applied"), Did::Something);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmed_order_sells_its_old_hold(db: PgPool) {
    let store = Store::open_with(db, serve_orders(roster::INVENTORY, OrderState::Confirmed, 3).await, None).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    store.kit.deliver(placed(order, &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    apply_order_states(store.service.clone()).await.expect("applied");
    assert_eq!(store.level("MUG").await, (6, 0, 4));
    store.kit.deliver(confirmed(order)).await;
    store.kit.deliver(cancelled(order)).await;
    assert_eq!(store.level("MUG").await, (10, 0, 0), "later events take effect");
    assert_eq!(store.kit.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_the_order_service_is_away_a_hold_stays(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 10).await.expect("received");
    store.kit.deliver(placed(Uuid::now_v7(), &[("MUG", 4)])).await;
    store.kit.context.clock.advance(Duration::from_secs(1_501));
    let failed = apply_order_states(store.service.clone()).await.expect_err("the order service cannot be reached");
    assert!(failed.will_pass(), "{failed}");
    apply_order_states(store.service.clone()).await.expect_err("it stays due until the order service responds");
    assert_eq!(store.level("MUG").await, (6, 4, 0));
}
