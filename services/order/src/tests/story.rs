//! The audit trail: who did what, when, and why.

use std::time::Duration;

use chassis::event::Record;
use contracts::souk::inventory::v1::inventory_event::Event as Stock;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::payment_event::Event as Payment;
use contracts::souk::payment::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, inventory_event, payment_event, stock_reserved};
use uuid::Uuid;

use super::Fixture;
use crate::expire::expire_due;

/// The clock of the tests stands at this second.
const BEGUN: i64 = 1_767_225_600;
const OPERATOR: &str = "operator:01920000-0000-7000-8000-000000000001";
const OURSELVES: &str = "service:order";

impl Fixture {
    pub(super) async fn story(&self, order: Uuid) -> Vec<OrderEventEntry> {
        let ask = ListOrderEventsRequest { order_id: order.to_string(), ..Default::default() };
        let story = self.client.clone().list_order_events(self.kit.customer(CUSTOMER, ask)).await;
        let story = story.expect("theirs").into_inner().events;
        for (at, entry) in story.iter().enumerate() {
            assert_eq!(entry.version, at as i64 + 1);
        }
        let ids: Vec<_> = story.iter().map(|entry| entry.event_id.clone()).collect();
        let published = testkit::published(&self.service.db).await.into_iter().filter(|record| record.key == order);
        assert_eq!(ids, published.map(|record| record.event_id.to_string()).collect::<Vec<_>>(), "as it was published");
        story
    }
}

/// What happened, who did it, after how many seconds, because of which event, and for what reason.
fn summary(entry: &OrderEventEntry) -> (&str, &str, i64, &str, &str) {
    let seconds = entry.time.unwrap_or_default().seconds - BEGUN;
    (&entry.r#type, &entry.actor, seconds, &entry.causation_id, &entry.reason)
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_an_operator_cancelled_and_refunded(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let refunded = |minor| {
        let amount = Some(Money::new("EUR", minor));
        payment_event(order, Payment::PaymentRefunded(PaymentRefunded { amount, ..Default::default() }))
    };
    let (reserved, authorized, captured) = (stock_reserved(order), authorized(order), captured(order, 2_500));
    let (wanted, rest) = (Record { actor: OPERATOR.to_owned(), ..refunded(500) }, refunded(2_000));
    for record in [&reserved, &authorized, &captured, &wanted] {
        fixture.kit.context.clock.advance(Duration::from_secs(1));
        fixture.kit.deliver(record.clone()).await;
    }
    let reason = CancelReason::Fraud.into();
    let ask = CancelOrderRequest { request_id: "c1".into(), order_id: order.to_string(), reason };
    fixture.client.clone().cancel_order(fixture.kit.operator(ask)).await.expect("an operator may");
    fixture.kit.deliver(rest.clone()).await;

    let customer = format!("user:{CUSTOMER}");
    let causes = [&reserved, &authorized, &captured, &wanted, &rest].map(|record| record.event_id.to_string());
    assert_eq!(
        fixture.story(order).await.iter().map(summary).collect::<Vec<_>>(),
        [
            ("OrderPlaced", customer.as_str(), 0, "", ""),
            ("OrderReserved", OURSELVES, 1, &causes[0], ""),
            ("OrderConfirmed", OURSELVES, 2, &causes[1], ""),
            ("OrderPaid", OURSELVES, 3, &causes[2], ""),
            ("OrderRefunded", OPERATOR, 4, &causes[3], ""),
            ("OrderCancelled", OPERATOR, 4, "", "CANCEL_REASON_FRAUD"),
            ("OrderRefunded", OURSELVES, 4, &causes[4], ""),
        ]
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_way_out_says_why(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (late, short, declined, regretted) =
        (fixture.place().await, fixture.place().await, fixture.place().await, fixture.place().await);
    let shortage = StockShortage { sku: "MUG".into(), requested: 2, ..Default::default() };
    let rejected = inventory_event(short, Stock::StockRejected(StockRejected { shortages: vec![shortage] }));
    fixture.kit.deliver(rejected.clone()).await;
    fixture.kit.deliver(stock_reserved(declined)).await;
    let refused = testkit::declined(declined);
    fixture.kit.deliver(refused.clone()).await;
    fixture.cancel(regretted, "c1").await.expect("pending");
    fixture.kit.context.clock.advance(Duration::from_secs(901));
    expire_due(fixture.service.clone()).await.expect("one is due");

    let (customer, rejected, refused) =
        (format!("user:{CUSTOMER}"), rejected.event_id.to_string(), refused.event_id.to_string());
    for (order, end) in [
        (late, ("OrderExpired", OURSELVES, 901, "", "DEADLINE_PASSED")),
        (short, ("OrderRejected", OURSELVES, 0, rejected.as_str(), "STOCK_SHORT")),
        (declined, ("OrderPaymentFailed", OURSELVES, 0, refused.as_str(), "CARD_DECLINED")),
        (regretted, ("OrderCancelled", customer.as_str(), 0, "", "CANCEL_REASON_CUSTOMER_REQUEST")),
    ] {
        assert_eq!(fixture.story(order).await.last().map(summary), Some(end));
    }
}
