use std::time::Duration;

use chassis::event::Record;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::payment::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{
    authorized, captured, deadlocks, declined, deliver, inventory_event, payment_event, reason, stock_reserved,
};
use tonic::Status;
use uuid::Uuid;

use super::Fixture;
use super::rebuild::compare;
use crate::expire::expire_due;

impl Fixture {
    pub(super) async fn fulfill(&self, order_id: Uuid, key: &str) -> Result<Order, Status> {
        let request = FulfillOrderRequest {
            request_id: key.into(),
            order_id: order_id.to_string(),
            carrier: "Royal Mail".into(),
            tracking_number: "RM-1".into(),
            ..Default::default()
        };
        let response = self.client.clone().fulfill_order(self.kit.operator(request)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    /// One order in each state.
    pub(super) async fn one_of_each(&self) -> Vec<(OrderState, Uuid)> {
        use OrderState::{Cancelled, Confirmed, Expired, Fulfilled, PaymentFailed, Pending, Rejected, Reserved};
        let mut orders = vec![];
        for state in [Expired, Pending, Reserved, Confirmed, Fulfilled, Rejected, PaymentFailed, Cancelled] {
            let order = self.place().await;
            if matches!(state, Reserved | Confirmed | Fulfilled | PaymentFailed) {
                self.kit.deliver(stock_reserved(order)).await;
            }
            if matches!(state, Confirmed | Fulfilled) {
                self.kit.deliver(authorized(order)).await;
            }
            match state {
                Expired => {
                    self.kit.context.clock.advance(Duration::from_secs(901));
                    expire_due(self.service.clone()).await.expect("one is due");
                }
                Fulfilled => {
                    self.kit.deliver(captured(order, 2_500)).await;
                    self.fulfill(order, "fulfilled").await.expect("paid");
                }
                Rejected => {
                    let rejected = Stock::StockRejected(StockRejected::default());
                    self.kit.deliver(inventory_event(order, rejected)).await;
                }
                PaymentFailed => self.kit.deliver(declined(order)).await,
                Cancelled => drop(self.cancel(order, "cancelled").await.expect("pending")),
                _ => {}
            }
            assert_eq!(self.state(order).await, state);
            orders.push((state, order));
        }
        orders
    }

    /// The types of the events that were published about an order. The event store has the same events.
    pub(super) async fn published(&self, order_id: Uuid) -> Vec<String> {
        let records = testkit::published(&self.service.db).await.into_iter().filter(|record| record.key == order_id);
        let records: Vec<_> = records.map(|record| record.event_id).collect();
        let stored =
            sqlx::query_scalar!("select event_id from order_event where order_id = $1 order by version", order_id);
        assert_eq!(stored.fetch_all(&self.service.db).await.expect("events"), records);
        self.kit.published(order_id).await
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_goes_from_placed_to_fulfilled(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.deliver(authorized(order)).await;
    assert_eq!(fixture.state(order).await, OrderState::Confirmed);
    let early = fixture.fulfill(order, "f1").await.expect_err("not paid");
    assert_eq!(reason(&early), "PAYMENT_NOT_CAPTURED@souk.order");
    fixture.kit.deliver(inventory_event(order, Stock::StockSold(StockSold {}))).await;
    fixture.kit.deliver(captured(order, 2_500)).await;
    let fulfilled = fixture.fulfill(order, "f1").await.expect("paid");
    assert_eq!(fulfilled.state(), OrderState::Fulfilled);
    assert_eq!(
        fixture.cancel(order, "c1").await.map_err(|it| reason(&it)),
        Err("ORDER_NOT_CANCELLABLE@souk.order".into())
    );
    let story = ["OrderPlaced", "OrderReserved", "OrderConfirmed", "OrderPaid", "OrderFulfilled"];
    assert_eq!(fixture.published(order).await, story);
    assert_eq!(fixture.kit.parked().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_stock_rejects_and_a_declined_card_fails(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (short, declined, lost) = (fixture.place().await, fixture.place().await, fixture.place().await);
    let shortage = StockShortage { sku: "MUG".into(), requested: 2, available: 1, ..Default::default() };
    fixture
        .kit
        .deliver(inventory_event(short, Stock::StockRejected(StockRejected { shortages: vec![shortage] })))
        .await;
    assert_eq!(
        (fixture.state(short).await, fixture.order(short).await.exit_reason),
        (OrderState::Rejected, "STOCK_SHORT".into())
    );
    assert_eq!(fixture.published(short).await, ["OrderPlaced", "OrderRejected"]);

    fixture.kit.deliver(stock_reserved(declined)).await;
    fixture.kit.deliver(testkit::declined(declined)).await;
    let order = fixture.order(declined).await;
    assert_eq!((order.state(), order.exit_reason.as_str()), (OrderState::PaymentFailed, "CARD_DECLINED"));

    fixture.kit.deliver(stock_reserved(lost)).await;
    fixture.kit.deliver(authorized(lost)).await;
    let failed = PaymentCaptureFailed { reason: "CARD_DECLINED".into() };
    fixture.kit.deliver(payment_event(lost, Payment::PaymentCaptureFailed(failed))).await;
    assert_eq!(fixture.state(lost).await, OrderState::PaymentFailed);
}

/// Where there was enough, but not for one customer, the order says so.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cap_is_another_reason_than_a_shortage(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let line = |sku: &str, reason: &str| StockShortage { sku: sku.into(), reason: reason.into(), ..Default::default() };
    for (lines, reason) in [
        (vec![line("MUG", "HOLD_CAP")], "HOLD_CAP"),
        (vec![line("MUG", "HOLD_CAP"), line("CUP", "STOCK_SHORT")], "STOCK_SHORT"),
        (vec![line("MUG", "STOCK_SHORT")], "STOCK_SHORT"),
    ] {
        let order = fixture.place().await;
        fixture.kit.deliver(inventory_event(order, Stock::StockRejected(StockRejected { shortages: lines }))).await;
        let order = fixture.order(order).await;
        assert_eq!((order.state(), order.exit_reason.as_str()), (OrderState::Rejected, reason));
    }
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (3, vec![]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_is_part_of_the_story(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.deliver(authorized(order)).await;
    fixture.kit.deliver(captured(order, 2_500)).await;
    fixture.cancel(order, "c1").await.expect("legal until fulfilled");
    let back = PaymentRefunded { amount: Some(Money::new("EUR", 2_500)), ..Default::default() };
    fixture.kit.deliver(payment_event(order, Payment::PaymentRefunded(back))).await;
    assert_eq!(fixture.order(order).await.payment.expect("a payment").refunded_minor, 2_500);
    assert_eq!(fixture.published(order).await.last().map(String::as_str), Some("OrderRefunded"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_failed_after_it_was_done_is_part_of_the_story_too(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.deliver(authorized(order)).await;
    fixture.kit.deliver(captured(order, 2_500)).await;
    let back = PaymentRefunded { amount: Some(Money::new("EUR", 900)), ..Default::default() };
    fixture.kit.deliver(payment_event(order, Payment::PaymentRefunded(back))).await;
    let failed = |minor| {
        let reason = "lost_or_stolen_card".to_owned();
        let failed = PaymentRefundFailed { amount: Some(Money::new("EUR", minor)), reason, ..Default::default() };
        Record { actor: "provider".to_owned(), ..payment_event(order, Payment::PaymentRefundFailed(failed)) }
    };
    fixture.kit.deliver(failed(900)).await;
    let shown = fixture.order(order).await;
    assert_eq!((shown.state(), shown.payment.expect("a payment").refunded_minor), (OrderState::Confirmed, 0));
    let story = fixture.story(order).await;
    let last = story.last().expect("a story");
    assert_eq!((&*last.r#type, &*last.actor, &*last.reason), ("OrderRefundFailed", "provider", "lost_or_stolen_card"));
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (1, vec![]));

    fixture.kit.deliver(failed(1)).await;
    assert_eq!(fixture.order(order).await.payment.expect("a payment").refunded_minor, 0, "more than went back");
    assert_eq!(fixture.kit.parked().await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_does_not_settle_in_time_expires(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (late, settled) = (fixture.place().await, fixture.place().await);
    fixture.kit.deliver(stock_reserved(settled)).await;
    fixture.kit.deliver(authorized(settled)).await;
    expire_due(fixture.service.clone()).await.expect("nothing is due");
    assert_eq!(fixture.state(late).await, OrderState::Pending);
    fixture.kit.context.clock.advance(Duration::from_secs(901));
    expire_due(fixture.service.clone()).await.expect("one is due");
    assert_eq!(fixture.state(late).await, OrderState::Expired);
    assert_eq!(fixture.state(settled).await, OrderState::Confirmed);
    fixture.kit.deliver(stock_reserved(late)).await;
    assert_eq!(fixture.published(late).await, ["OrderPlaced", "OrderExpired"]);
}

/// Events of peers may still be under way when an order ends: none is parked, and the order stays as it ended.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_after_the_end_of_an_order_change_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (state, order) in fixture.one_of_each().await {
        if !matches!(state, OrderState::PaymentFailed | OrderState::Cancelled | OrderState::Expired) {
            continue;
        }
        let (before, published) = (fixture.order(order).await, fixture.published(order).await);
        fixture.kit.deliver(stock_reserved(order)).await;
        fixture.kit.deliver(authorized(order)).await;
        fixture.kit.deliver(declined(order)).await;
        fixture.kit.deliver(inventory_event(order, Stock::StockReleased(StockReleased {}))).await;
        let voided = PaymentVoided { amount: Some(Money::new("EUR", 2_500)) };
        fixture.kit.deliver(payment_event(order, Payment::PaymentVoided(voided))).await;
        assert_eq!((fixture.order(order).await, fixture.published(order).await), (before, published), "{state:?}");
    }
    assert_eq!(fixture.kit.parked().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_of_nothing_or_of_too_much_is_not_recorded(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (state, order) in fixture.one_of_each().await {
        if !matches!(state, OrderState::Fulfilled | OrderState::Cancelled) {
            continue;
        }
        let amount = (state == OrderState::Fulfilled).then(|| Money::new("EUR", 2_501));
        fixture
            .kit
            .deliver(payment_event(order, Payment::PaymentRefunded(PaymentRefunded { amount, ..Default::default() })))
            .await;
        assert_eq!(fixture.order(order).await.payment.expect("always there").refunded_minor, 0);
    }
    assert_eq!(fixture.kit.parked().await, 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_impossible_event_parks_its_key_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (odd, fine) = (fixture.place().await, fixture.place().await);
    fixture.kit.deliver(inventory_event(odd, Stock::StockSold(StockSold {}))).await;
    fixture.kit.deliver(stock_reserved(odd)).await;
    fixture.kit.deliver(stock_reserved(fine)).await;
    fixture.kit.deliver(stock_reserved(Uuid::now_v7())).await;
    assert_eq!((fixture.state(odd).await, fixture.state(fine).await), (OrderState::Pending, OrderState::Reserved));
    assert_eq!(fixture.kit.parked().await, 3, "the odd one, the one behind it, and the one of an unknown order");
}

/// Such as those of one partition that wait together: each is decided on what the one before it made of the order.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_of_one_order_may_share_a_transaction(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, other) = (fixture.place().await, fixture.place().await);
    let group = [
        stock_reserved(order),
        authorized(order),
        stock_reserved(other),
        captured(order, 2_500),
        inventory_event(order, Stock::StockSold(StockSold {})),
    ];
    fixture.kit.deliver_together(&group).await;
    assert_eq!(fixture.published(order).await, ["OrderPlaced", "OrderReserved", "OrderConfirmed", "OrderPaid"]);
    assert_eq!(fixture.published(other).await, ["OrderPlaced", "OrderReserved"]);
    let transactions = r#"select count(distinct xmin::text) from order_event where version > 1"#;
    let transactions: i64 = sqlx::query_scalar(transactions).fetch_one(&fixture.service.db).await.expect("a count");
    assert_eq!((transactions, fixture.kit.parked().await), (1, 0));
    assert_eq!(compare(&fixture.service.db).await.expect("compared"), (2, vec![]));
}

/// Whether it is impossible now, about no order, or refused by the table: the others of its group take effect.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_poison_message_in_a_group_parks_its_key_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (odd, paid, fine) = (fixture.place().await, fixture.place().await, fixture.place().await);
    let too_much = PaymentRefunded { amount: Some(Money::new("EUR", 2_501)), ..Default::default() };
    let group = [
        stock_reserved(fine),
        inventory_event(odd, Stock::StockSold(StockSold {})),
        stock_reserved(odd),
        stock_reserved(Uuid::now_v7()),
        stock_reserved(paid),
        authorized(paid),
        payment_event(paid, Payment::PaymentRefunded(too_much)),
        authorized(fine),
    ];
    fixture.kit.deliver_together(&group).await;
    assert_eq!(fixture.published(odd).await, ["OrderPlaced"]);
    for order in [paid, fine] {
        assert_eq!(fixture.published(order).await, ["OrderPlaced", "OrderReserved", "OrderConfirmed"]);
    }
    assert_eq!(fixture.kit.parked().await, 4, "of the odd order two, of an unknown one, and the refund");
}

/// A table sees only what a group ends with: each event must be possible by itself, as if it had come alone.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_impossible_refund_is_not_recorded_because_the_next_event_undoes_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let amount = Some(Money::new("EUR", 2_501));
    let refunded = PaymentRefunded { amount: amount.clone(), ..Default::default() };
    let failed = PaymentRefundFailed { amount, ..Default::default() };
    let group = [
        stock_reserved(order),
        authorized(order),
        payment_event(order, Payment::PaymentRefunded(refunded)),
        payment_event(order, Payment::PaymentRefundFailed(failed)),
    ];
    fixture.kit.deliver_together(&group).await;
    assert_eq!(fixture.published(order).await, ["OrderPlaced", "OrderReserved", "OrderConfirmed"]);
    assert_eq!(fixture.kit.parked().await, 2, "the refund, and its failure behind it");
}

/// Each group is of one partition; that an order is sold and that it is paid come on two topics, in any order.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn groups_that_cross_do_not_deadlock(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut orders = vec![];
    for _ in 0..16 {
        let order = fixture.place().await;
        fixture.kit.deliver(stock_reserved(order)).await;
        fixture.kit.deliver(authorized(order)).await;
        orders.push(order);
    }
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let sold = orders.iter().map(|order| inventory_event(*order, Stock::StockSold(StockSold {})));
        let (sold, again): (Vec<_>, Vec<_>) = (sold.collect(), orders.iter().rev().map(|it| authorized(*it)).collect());
        for group in [sold, again] {
            let (consumer, clock) = (fixture.kit.consumer().clone(), fixture.kit.context.clock.clone());
            crowd.spawn(async move { deliver(&consumer, &clock, &group).await });
        }
        while crowd.join_next().await.is_some() {}
    }
    assert_eq!(fixture.kit.parked().await, 0);
    assert_eq!(deadlocks(&fixture.service.db).await, 0);
}

/// A newer version of a peer may publish more.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unknown_event_type_is_skipped(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let mut newer = stock_reserved(order);
    newer.event_type = "souk.inventory.v1.StockCounted".to_owned();
    fixture.kit.deliver(newer).await;
    assert_eq!((fixture.state(order).await, fixture.kit.parked().await), (OrderState::Pending, 0));
    fixture.kit.deliver(stock_reserved(order)).await;
    assert_eq!(fixture.state(order).await, OrderState::Reserved);
}

/// Such as at the provider itself.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_capture_of_a_part_does_not_pay_for_an_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.deliver(authorized(order)).await;
    fixture.kit.deliver(captured(order, 2_499)).await;
    let failed = fixture.order(order).await;
    assert_eq!((failed.state(), failed.exit_reason.as_str()), (OrderState::PaymentFailed, "CAPTURED_IN_PART"));
    assert_eq!(fixture.published(order).await.last().map(String::as_str), Some("OrderPaymentFailed"));
    assert_eq!(fixture.kit.parked().await, 0);
}

/// The provider may release an authorization while the order expires, before either learns of the other.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_expired_order_ignores_that_its_authorization_was_lost(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.kit.context.clock.advance(Duration::from_secs(901));
    expire_due(fixture.service.clone()).await.expect("expired");
    assert_eq!(fixture.state(order).await, OrderState::Expired);
    fixture.kit.deliver(authorized(order)).await;
    let lost = PaymentCaptureFailed { reason: "AUTHORIZATION_LOST".into() };
    fixture.kit.deliver(payment_event(order, Payment::PaymentCaptureFailed(lost))).await;
    assert_eq!(fixture.state(order).await, OrderState::Expired);
    assert_eq!(fixture.kit.parked().await, 0);
}
