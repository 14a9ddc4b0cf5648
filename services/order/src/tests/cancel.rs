use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, fields, reason, stock_reserved};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    pub(super) async fn cancel(&self, order_id: Uuid, key: &str) -> Result<Order, Status> {
        let reason = CancelReason::CustomerRequest.into();
        let ask = CancelOrderRequest { request_id: key.into(), order_id: order_id.to_string(), reason };
        let response = self.client.clone().cancel_order(self.kit.customer(CUSTOMER, ask)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_late_authorization_does_not_revive_a_cancelled_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.cancel(order, "c1").await.expect("legal while reserved");
    fixture.kit.deliver(authorized(order)).await;
    assert_eq!(fixture.state(order).await, OrderState::Cancelled);
    assert_eq!(fixture.published(order).await, ["OrderPlaced", "OrderReserved", "OrderCancelled"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn cancelling_is_legal_until_an_order_is_fulfilled_and_answers_the_same_twice(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (pending, confirmed) = (fixture.place().await, fixture.place().await);
    let first = fixture.cancel(pending, "c1").await.expect("pending");
    assert_eq!(first.exit_reason, "CANCEL_REASON_CUSTOMER_REQUEST");
    assert_eq!(fixture.cancel(pending, "c1").await.expect("replayed"), first);
    let again = fixture.cancel(pending, "c2").await.expect_err("another key, a new attempt");
    assert_eq!((again.code(), reason(&again)), (Code::FailedPrecondition, "ORDER_NOT_CANCELLABLE@souk.order".into()));

    fixture.kit.deliver(stock_reserved(confirmed)).await;
    fixture.kit.deliver(authorized(confirmed)).await;
    fixture.cancel(confirmed, "c3").await.expect("confirmed");
    assert_eq!(fixture.state(confirmed).await, OrderState::Cancelled);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn somebody_elses_order_is_not_there(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let ask = CancelOrderRequest {
        request_id: "c1".into(),
        order_id: order.to_string(),
        reason: CancelReason::CustomerRequest.into(),
    };
    let stranger =
        fixture.client.clone().cancel_order(fixture.kit.customer(Uuid::now_v7(), ask)).await.expect_err("not theirs");
    assert_eq!((stranger.code(), reason(&stranger)), (Code::NotFound, "ORDER_NOT_FOUND@souk.order".into()));
    assert_eq!(fixture.state(order).await, OrderState::Pending);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn some_reasons_are_for_operators(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let ask =
        CancelOrderRequest { request_id: "c1".into(), order_id: order.to_string(), reason: CancelReason::Fraud.into() };
    let refused =
        fixture.client.clone().cancel_order(fixture.kit.customer(CUSTOMER, ask.clone())).await.expect_err("no");
    assert_eq!(fields(&refused), ["reason"]);
    fixture.client.clone().cancel_order(fixture.kit.operator(ask)).await.expect("an operator may");
    let actor = sqlx::query_scalar!("select actor from order_event order by version desc limit 1");
    let actor = actor.fetch_one(&fixture.service.db).await.expect("an event");
    assert!(actor.starts_with("operator:"), "{actor}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_terminal_is_not_cancelled_and_the_answer_says_what_it_is(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (state, order) in fixture.one_of_each().await {
        let cancelled = fixture.cancel(order, state.as_str_name()).await;
        if matches!(state, OrderState::Pending | OrderState::Reserved | OrderState::Confirmed) {
            assert_eq!(cancelled.expect("legal").state(), OrderState::Cancelled);
            continue;
        }
        let refused = cancelled.expect_err("terminal");
        assert_eq!(reason(&refused), "ORDER_NOT_CANCELLABLE@souk.order", "{state:?}");
        let info = refused.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(Some(info.metadata["state"].as_str()), state.as_str_name().strip_prefix("ORDER_STATE_"));
        assert_eq!(fixture.state(order).await, state);
    }
}
