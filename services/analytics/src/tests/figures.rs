//! Sales, top products and the funnel: what events add up to, however they arrive.

use chassis::event::Record;
use contracts::souk::analytics::v1::*;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::fields;
use tonic::Code;

use super::{CUP, Fixture, MUG, Story, figures};

const DAY: &str = "2026-06-01";

fn cancelled() -> Event {
    Event::OrderCancelled(OrderCancelled { reason: CancelReason::CustomerRequest.into() })
}

/// Eight orders of one day, in every way in which an order can go.
pub(super) fn stories() -> Vec<Story> {
    let place = |order, hour: u32, currency, lines: &[_]| {
        Story::placed(order, &format!("{DAY}T{hour:02}:10:00Z"), currency, lines)
    };
    let declined = Event::OrderPaymentFailed(OrderPaymentFailed { reason: "CARD_DECLINED".to_owned() });
    let failed = OrderRefundFailed { amount: Some(Money::new("EUR", 300)), ..Default::default() };
    vec![
        place(1, 8, "EUR", &[(MUG, 2, 1_000), (CUP, 1, 300)])
            .paid()
            .then(60_000, Event::OrderFulfilled(Default::default())),
        place(2, 8, "USD", &[(MUG, 1, 1_100)]).paid(),
        place(3, 9, "EUR", &[(CUP, 5, 300)]).paid().then(5_000, cancelled()).refunded(1_000, 1_500),
        place(4, 9, "EUR", &[(MUG, 1, 1_000)])
            .then(10, Event::OrderRejected(OrderRejected { reason: "STOCK_SHORT".to_owned(), ..Default::default() })),
        place(5, 10, "EUR", &[(MUG, 1, 1_000)]).then(5, Event::OrderReserved(Default::default())).then(50, declined),
        place(6, 10, "EUR", &[(MUG, 1, 1_000)])
            .then(900_000, Event::OrderExpired(OrderExpired { reason: "DEADLINE_PASSED".to_owned() })),
        place(7, 11, "EUR", &[(MUG, 1, 1_000)])
            .paid()
            .refunded(1_000, 300)
            .then(1_000, Event::OrderRefundFailed(failed)),
        // Captured when it was cancelled already, and refunded: it was never a sale.
        place(8, 11, "EUR", &[(MUG, 1, 1_000)]).confirmed(100).then(10, cancelled()).refunded(1_000, 1_000),
    ]
}

pub(super) async fn assert_figures(fixture: &Fixture) {
    let sales = fixture.sales(DAY, DAY, Granularity::Day).await;
    let totals: Vec<_> = sales.totals.iter().map(figures).collect();
    assert_eq!(totals, [("EUR", 3, 4_800, 1_500, 3_300), ("USD", 1, 1_100, 0, 1_100)]);
    let by_hour = fixture.sales(DAY, DAY, Granularity::Hour).await;
    let by_hour: Vec<_> =
        by_hour.periods.iter().map(|it| (&it.local_start[11..13], it.sales.as_ref().map(figures))).collect();
    assert_eq!(
        by_hour,
        [
            ("10", Some(("EUR", 1, 2_300, 0, 2_300))),
            ("10", Some(("USD", 1, 1_100, 0, 1_100))),
            ("11", Some(("EUR", 1, 1_500, 1_500, 0))),
            ("13", Some(("EUR", 1, 1_000, 0, 1_000))),
        ]
    );

    let (start_date, end_date) = (DAY.to_owned(), DAY.to_owned());
    let request = ListTopProductsRequest { start_date, end_date, ..Default::default() };
    let top = fixture.top(request).await.expect("read");
    let top: Vec<_> =
        top.iter().map(|it| (&it.sku[..], &it.title[..], it.orders, it.units, it.gross.clone())).collect();
    assert_eq!(
        top,
        [
            ("CUP", "Cup", 2, 6, Some(Money::new("EUR", 1_800))),
            ("MUG", "Mug", 2, 3, Some(Money::new("EUR", 3_000))),
            ("MUG", "Mug", 1, 1, Some(Money::new("USD", 1_100))),
        ]
    );

    let funnel = fixture.funnel(DAY, DAY).await;
    assert_eq!((funnel.placed, funnel.reserved, funnel.confirmed, funnel.paid, funnel.fulfilled), (8, 6, 5, 4, 1));
    let mut exits: Vec<_> = funnel.exits.iter().map(|it| (it.exit(), &it.reason[..], it.orders)).collect();
    exits.sort_by_key(|(exit, ..)| i32::from(*exit));
    assert_eq!(
        exits,
        [
            (Exit::Rejected, "STOCK_SHORT", 1),
            (Exit::PaymentFailed, "CARD_DECLINED", 1),
            (Exit::Cancelled, "CANCEL_REASON_CUSTOMER_REQUEST", 2),
            (Exit::Expired, "DEADLINE_PASSED", 1),
        ]
    );
    let took = funnel.confirmation_time.expect("some were confirmed");
    let p50 = took.p50.map(|it| f64::from(it.nanos) / 1e6).expect("some were confirmed");
    assert!(took.orders == 5 && (95.0..=105.0).contains(&p50), "{took:?}");
}

/// The events of all orders, as a topic has them: those of one order in their order, and all others in between.
pub(super) fn interleaved(stories: Vec<Story>) -> Vec<Record> {
    let mut records: Vec<_> = stories.into_iter().flat_map(|story| story.records).collect();
    records.sort_by_key(|record| (record.version, record.key));
    records
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn events_one_by_one_add_up(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for record in interleaved(stories()) {
        fixture.kit.deliver(record).await;
    }
    assert_figures(&fixture).await;
    assert_eq!(fixture.kit.parked().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn sets_of_events_add_up_and_three_times_is_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for _ in 0..3 {
        fixture.kit.deliver_together(&interleaved(stories())).await;
    }
    assert_figures(&fixture).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn late_events_count_when_they_happened(db: PgPool) {
    let fixture = Fixture::open(db).await;
    // Orders of the next day come first, and of the day itself the last order.
    let next = Story::placed(9, "2026-06-02T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    fixture.kit.deliver_together(&next.records).await;
    for story in stories().into_iter().rev() {
        fixture.kit.deliver_together(&story.records).await;
    }
    assert_figures(&fixture).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn products_add_up_to_the_gross_sales(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    fixture.kit.deliver_together(&interleaved(stories())).await;
    let sql = "select count(*) from
                 (select quarter, currency, gross from sales where gross > 0) as sold full join
                 (select quarter, currency, sum(gross) as gross from product_sales group by 1, 2) as products
                 using (quarter, currency) where sold.gross is distinct from products.gross";
    let differ: i64 = sqlx::query_scalar(sql).fetch_one(&db).await.expect("read");
    assert_eq!(differ, 0);
    let kept = "select count(*) from counted_order where lines <> ''";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&db).await.expect("read");
    assert_eq!(kept, 0, "lines are not needed after the order was paid or ended");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_was_never_placed_is_parked(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let story = Story::placed(1, "2026-06-01T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    fixture.kit.deliver_together(&story.records[1..]).await;
    assert_eq!(fixture.kit.parked().await, 3, "the first one that cannot count, and what follows it");
    assert!(fixture.sales(DAY, DAY, Granularity::Day).await.totals.is_empty());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_reason_that_is_no_name_does_not_fill_the_table(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (order, reason) in [(1, "x".repeat(1_000)), (2, "an apology".to_owned())] {
        let failed = Event::OrderPaymentFailed(OrderPaymentFailed { reason });
        let story = Story::placed(order, "2026-06-01T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).then(10, failed);
        fixture.kit.deliver_together(&story.records).await;
    }
    let exits = fixture.funnel(DAY, DAY).await.exits;
    assert_eq!(exits, [FunnelExit { exit: Exit::PaymentFailed.into(), reason: "OTHER".to_owned(), orders: 2 }]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn products_are_ranked_and_filtered(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver_together(&interleaved(stories())).await;
    let (start_date, end_date) = (DAY.to_owned(), DAY.to_owned());
    let request = ListTopProductsRequest { start_date, end_date, ..Default::default() };
    let by_gross = ListTopProductsRequest { rank: ProductRank::Gross.into(), ..request.clone() };
    assert_eq!(fields(&fixture.top(by_gross.clone()).await.expect_err("in which currency?")), ["currency"]);
    let in_euro = fixture.top(ListTopProductsRequest { currency: "EUR".to_owned(), ..by_gross }).await.expect("read");
    assert_eq!(in_euro.iter().map(|it| &it.sku[..]).collect::<Vec<_>>(), ["MUG", "CUP"]);
    let first = fixture.top(ListTopProductsRequest { limit: 1, ..request.clone() }).await.expect("read");
    assert_eq!(first.iter().map(|it| &it.sku[..]).collect::<Vec<_>>(), ["CUP"]);
    let refused = fixture.top(ListTopProductsRequest { limit: 201, ..request }).await.expect_err("too many");
    assert_eq!(fields(&refused), ["limit"]);
    let in_dollars = GetSalesSummaryRequest { currency: "USD".to_owned(), ..Default::default() };
    let request = GetSalesSummaryRequest { start_date: DAY.to_owned(), end_date: DAY.to_owned(), ..in_dollars };
    let sales = fixture.try_sales(request).await.expect("read");
    assert_eq!(sales.totals.iter().map(figures).collect::<Vec<_>>(), [("USD", 1, 1_100, 0, 1_100)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn figures_are_for_operators(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.kit.customer(testkit::CUSTOMER, GetSalesSummaryRequest::default());
    let refused = fixture.client.clone().get_sales_summary(request).await.expect_err("a customer");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_without_an_amount_is_a_dead_letter(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let paid = || Story::placed(9, "2026-06-01T08:00:00Z", "EUR", &[(MUG, 1, 1_000)]).paid();
    let story = paid().then(10, Event::OrderRefunded(OrderRefunded::default()));
    fixture.kit.deliver_together(&story.records).await;
    assert_eq!(fixture.kit.parked().await, 1);
    let sales = fixture.sales("2026-06-01", "2026-06-01", Granularity::Day).await;
    assert_eq!(sales.totals.iter().map(figures).collect::<Vec<_>>(), [("EUR", 1, 1_000, 0, 1_000)]);
}
