use std::time::Duration;

use chassis::Did;
use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use testkit::serve_orders;

use super::Till;
use crate::stale::settle_waiting;

async fn open(db: PgPool, state: OrderState, version: i64) -> Till {
    let orders = serve_orders(state, version).await;
    Till::open_with(db, Duration::from_secs(10), |service| service.orders = orders).await
}

impl Till {
    /// Whether the order service was asked.
    async fn ask_orders(&self) -> bool {
        settle_waiting(self.service.clone()).await.expect("asked") == Did::Something
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_payment_that_waits_for_its_order_does_what_the_order_wants(db: PgPool) {
    for (state, ends) in [(OrderState::Confirmed, "CAPTURED"), (OrderState::Cancelled, "VOIDED")] {
        let till = open(db.clone(), state, 4).await;
        let order = till.reserved("pm_card_visa").await;
        till.work().await;
        assert!(!till.ask_orders().await, "it has not waited");
        till.kit.context.clock.advance(Duration::from_secs(61));
        assert!(till.ask_orders().await);
        till.work().await;
        assert_eq!(till.state(order).await, ends);
        // The event that the answer was ahead of changes nothing.
        till.confirmed(order).await;
        till.work().await;
        assert_eq!(till.state(order).await, ends);
        assert_eq!(till.ours(order).await, till.theirs(order).await);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_answer_that_is_older_than_the_known_version_changes_nothing(db: PgPool) {
    let till = open(db, OrderState::Cancelled, 2).await;
    let order = till.reserved("pm_card_visa").await;
    till.work().await;
    till.kit.context.clock.advance(Duration::from_secs(61));
    assert!(till.ask_orders().await);
    till.work().await;
    assert_eq!(till.state(order).await, "AUTHORIZED", "it was RESERVED at that version");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_goes_on_keeps_its_hold_and_is_asked_about_later(db: PgPool) {
    let till = open(db, OrderState::Reserved, 2).await;
    let order = till.reserved("pm_card_visa").await;
    till.work().await;
    till.kit.context.clock.advance(Duration::from_secs(61));
    assert!(till.ask_orders().await);
    assert!(!till.ask_orders().await, "it was just asked");
    till.kit.context.clock.advance(Duration::from_secs(61));
    assert!(till.ask_orders().await);
    assert_eq!(till.state(order).await, "AUTHORIZED");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_orders_cannot_be_asked_the_hold_stays(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.reserved("pm_card_visa").await;
    till.work().await;
    till.kit.context.clock.advance(Duration::from_secs(61));
    for _ in 0..2 {
        let failed = settle_waiting(till.service.clone()).await.expect_err("nobody answers");
        assert!(failed.will_pass(), "{failed}");
    }
    assert_eq!(till.state(order).await, "AUTHORIZED");
}
