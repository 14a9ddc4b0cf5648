use std::time::Duration;

use chassis::Next;
use contracts::souk::order::v1::OrderState;
use sqlx::PgPool;
use testkit::serve_orders;

use super::Fixture;
use crate::stale::apply_order_states;

async fn open(db: PgPool, state: OrderState, version: i64) -> Fixture {
    let orders = serve_orders(roster::PAYMENT, state, version).await;
    Fixture::open_with(db, Duration::from_secs(10), |service| service.orders = orders).await
}

impl Fixture {
    /// Whether the order service was asked.
    async fn apply_order_states(&self) -> bool {
        apply_order_states(self.service.clone()).await.expect("applied") == Next::AtOnce
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_payment_that_waits_for_its_order_does_what_the_order_wants(db: PgPool) {
    for (state, ends) in [(OrderState::Confirmed, "CAPTURED"), (OrderState::Cancelled, "VOIDED")] {
        let fixture = open(db.clone(), state, 4).await;
        let order = fixture.reserved("pm_card_visa").await;
        fixture.work().await;
        assert!(!fixture.apply_order_states().await, "it has not waited");
        fixture.kit.context.clock.advance(Duration::from_secs(61));
        assert!(fixture.apply_order_states().await);
        fixture.work().await;
        assert_eq!(fixture.state(order).await, ends);
        // The event arrives later than the state, and changes nothing.
        fixture.confirmed(order).await;
        fixture.work().await;
        assert_eq!(fixture.state(order).await, ends);
        assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_state_older_than_the_known_version_changes_nothing(db: PgPool) {
    let fixture = open(db, OrderState::Cancelled, 2).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    assert!(fixture.apply_order_states().await);
    fixture.work().await;
    assert_eq!(fixture.state(order).await, "AUTHORIZED", "it was RESERVED at that version");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_in_progress_keeps_its_authorization_and_is_checked_later(db: PgPool) {
    let fixture = open(db, OrderState::Reserved, 2).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    assert!(fixture.apply_order_states().await);
    assert!(!fixture.apply_order_states().await, "it was just checked");
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    assert!(fixture.apply_order_states().await);
    assert_eq!(fixture.state(order).await, "AUTHORIZED");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn while_the_order_service_is_away_the_authorization_stays(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    for _ in 0..2 {
        let failed =
            apply_order_states(fixture.service.clone()).await.expect_err("the order service cannot be reached");
        assert!(failed.will_pass(), "{failed}");
    }
    assert_eq!(fixture.state(order).await, "AUTHORIZED");
}
