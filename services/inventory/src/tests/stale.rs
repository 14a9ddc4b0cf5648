use std::time::Duration;

use chassis::Next;
use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use testkit::serve_orders;
use uuid::Uuid;

use super::Fixture;
use super::reservation::{cancelled, confirmed, placed};
use crate::stale::apply_order_states;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_old_hold_follows_the_state_of_its_order(db: PgPool) {
    let fixture = Fixture::open_with(db, serve_orders(roster::INVENTORY, OrderState::Cancelled, 4).await, None).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(placed(order, &[("MUG", 4)])).await;

    assert_eq!(apply_order_states(fixture.service.clone()).await.expect("applied"), Next::AfterPause, "it is not old");
    fixture.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(fixture.service.clone()).await.expect("applied"), Next::AtOnce);
    assert_eq!(fixture.level("MUG").await, (10, 0, 0));
    assert_eq!(fixture.kit.published(order).await, ["StockReserved", "StockReleased"]);

    // Its events arrive later than the state: they change nothing, and do not park the order.
    fixture.kit.deliver(confirmed(order)).await;
    fixture.kit.deliver(cancelled(order)).await;
    assert_eq!((fixture.level("MUG").await, fixture.kit.parked().await), ((10, 0, 0), 0));
    assert_eq!(fixture.kit.published(order).await, ["StockReserved", "StockReleased"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_in_progress_keeps_its_hold_and_is_checked_later(db: PgPool) {
    let fixture = Fixture::open_with(db, serve_orders(roster::INVENTORY, OrderState::Reserved, 2).await, None).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(placed(order, &[("MUG", 4)])).await;
    fixture.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(fixture.service.clone()).await.expect("applied"), Next::AtOnce);
    assert_eq!(
        apply_order_states(fixture.service.clone()).await.expect("applied"),
        Next::AfterPause,
        "it was just checked"
    );
    assert_eq!(fixture.level("MUG").await, (6, 4, 0));
    fixture.kit.context.clock.advance(Duration::from_secs(1_501));
    assert_eq!(apply_order_states(fixture.service.clone()).await.expect("applied"), Next::AtOnce);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmed_order_sells_its_old_hold(db: PgPool) {
    let fixture = Fixture::open_with(db, serve_orders(roster::INVENTORY, OrderState::Confirmed, 3).await, None).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(placed(order, &[("MUG", 4)])).await;
    fixture.kit.context.clock.advance(Duration::from_secs(1_501));
    apply_order_states(fixture.service.clone()).await.expect("applied");
    assert_eq!(fixture.level("MUG").await, (6, 0, 4));
    fixture.kit.deliver(confirmed(order)).await;
    fixture.kit.deliver(cancelled(order)).await;
    assert_eq!(fixture.level("MUG").await, (10, 0, 0), "later events take effect");
    assert_eq!(fixture.kit.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_the_order_service_is_away_a_hold_stays(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    fixture.kit.deliver(placed(Uuid::now_v7(), &[("MUG", 4)])).await;
    fixture.kit.context.clock.advance(Duration::from_secs(1_501));
    let failed = apply_order_states(fixture.service.clone()).await.expect_err("the order service cannot be reached");
    assert!(failed.will_pass(), "{failed}");
    apply_order_states(fixture.service.clone()).await.expect_err("it stays due until the order service responds");
    assert_eq!(fixture.level("MUG").await, (6, 4, 0));
}
