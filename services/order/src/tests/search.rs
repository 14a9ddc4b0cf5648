use std::time::Duration;

use chassis::timestamp;
use contracts::souk::order::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, fields, one_session, reason, rows_read, stock_reserved};
use time::OffsetDateTime;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Fixture;

const OTHER: Uuid = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0002);

impl Fixture {
    /// The ids that a search returns, on all its pages of two.
    async fn search(&self, request: SearchOrdersRequest) -> Result<Vec<String>, Status> {
        let (mut found, mut page_token) = (vec![], String::new());
        loop {
            let request = SearchOrdersRequest { page_size: 2, page_token, ..request.clone() };
            let page = self.client.clone().search_orders(self.kit.operator(request)).await?.into_inner();
            found.extend(page.orders.into_iter().map(|order| order.order_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Places an order of these products, a minute after the one before.
    async fn order_of(&self, customer: Uuid, products: &[(&str, i32)]) -> String {
        self.kit.context.clock.advance(Duration::from_secs(60));
        let item =
            |(product_id, quantity): &(&str, i32)| OrderItem { product_id: (*product_id).into(), quantity: *quantity };
        let items = products.iter().map(item).collect();
        let (request_id, payment_method) = (Uuid::now_v7().to_string(), "pm_card_visa".to_owned());
        let request = CreateOrderRequest { request_id, items, payment_method, ..Default::default() };
        let response = self.client.clone().create_order(self.kit.customer(customer, request)).await.expect("placed");
        response.into_inner().order.expect("a success has the order").order_id
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn orders_are_found_by_every_filter_newest_first(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let cheap = fixture.catalogue.add("MUG-1", Money::new("EUR", 500));
    let dear = fixture.catalogue.add("POT-1", Money::new("EUR", 9_000));
    let first = fixture.order_of(CUSTOMER, &[(&cheap, 1)]).await;
    let second = fixture.order_of(OTHER, &[(&cheap, 2), (&dear, 1)]).await;
    let third = fixture.order_of(CUSTOMER, &[(&dear, 1)]).await;
    let begun = fixture.kit.context.clock.now();
    let fourth = fixture.order_of(CUSTOMER, &[(&cheap, 3)]).await;
    fixture.cancel(Uuid::parse_str(&third).expect("a UUID"), "c1").await.expect("cancelled");

    let any = SearchOrdersRequest::default();
    let by = |filter: fn(&mut SearchOrdersRequest)| {
        let mut request = SearchOrdersRequest::default();
        filter(&mut request);
        request
    };
    let no_end = timestamp(OffsetDateTime::from_unix_timestamp(253_402_300_799).expect("the last second of 9999"));
    let cases = [
        (any.clone(), vec![&fourth, &third, &second, &first]),
        (by(|it| it.state = OrderState::Cancelled.into()), vec![&third]),
        (by(|it| it.user_id = CUSTOMER.to_string()), vec![&fourth, &third, &first]),
        (by(|it| it.sku = "MUG-1".into()), vec![&fourth, &second, &first]),
        (by(|it| it.sku = "NONE".into()), vec![]),
        (by(|it| it.min_total_minor = Some(9_000)), vec![&third, &second]),
        (by(|it| it.max_total_minor = Some(1_500)), vec![&fourth, &first]),
        (SearchOrdersRequest { product_id: dear.clone(), ..any.clone() }, vec![&third, &second]),
        (SearchOrdersRequest { product_id: dear.clone(), user_id: OTHER.to_string(), ..any.clone() }, vec![&second]),
        (SearchOrdersRequest { product_id: dear.clone(), sku: "MUG-1".into(), ..any.clone() }, vec![]),
        (SearchOrdersRequest { placed_before: Some(timestamp(begun)), ..any.clone() }, vec![&second, &first]),
        (SearchOrdersRequest { placed_before: Some(no_end), ..any.clone() }, vec![&fourth, &third, &second, &first]),
        (SearchOrdersRequest { placed_from: Some(timestamp(begun)), ..any.clone() }, vec![&fourth, &third]),
    ];
    for (request, expected) in cases {
        let found = fixture.search(request.clone()).await.expect("a page");
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{request:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_search_is_for_operators_and_names_what_is_wrong(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.kit.customer(CUSTOMER, SearchOrdersRequest::default());
    let refused = fixture.client.clone().search_orders(request).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let any = SearchOrdersRequest::default();
    let long_ago = Some(timestamp(OffsetDateTime::UNIX_EPOCH - Duration::from_secs(1)));
    let cases = [
        (SearchOrdersRequest { user_id: "x".into(), ..any.clone() }, "user_id"),
        (SearchOrdersRequest { product_id: "x".into(), ..any.clone() }, "product_id"),
        (SearchOrdersRequest { min_total_minor: Some(-1), ..any.clone() }, "min_total_minor"),
        (SearchOrdersRequest { placed_from: long_ago, ..any.clone() }, "placed_from"),
        (SearchOrdersRequest { state: 99, ..any.clone() }, "state"),
    ];
    for (request, field) in cases {
        assert_eq!(fields(&fixture.search(request).await.expect_err(field)), [field]);
    }
    // A token of one search is not valid for another.
    let one = fixture.catalogue.add("MUG-1", Money::new("EUR", 500));
    for _ in 0..3 {
        fixture.order_of(CUSTOMER, &[(&one, 1)]).await;
    }
    let request = SearchOrdersRequest { page_size: 2, ..any.clone() };
    let page = fixture.client.clone().search_orders(fixture.kit.operator(request)).await.expect("a page").into_inner();
    let request = SearchOrdersRequest { page_token: page.next_page_token, sku: "MUG-1".into(), ..any };
    let refused =
        fixture.client.clone().search_orders(fixture.kit.operator(request)).await.expect_err("another search");
    assert_eq!(reason(&refused), "PAGE_TOKEN_INVALID@souk.order");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_rare_is_found_without_reading_the_rest(db: PgPool) {
    let fixture = Fixture::open(one_session(&db).await).await;
    let (pending, confirmed) = (fixture.place().await, fixture.place().await);
    for record in [stock_reserved(confirmed), authorized(confirmed)] {
        fixture.kit.deliver(record).await;
    }
    fixture.copies(confirmed, "'state', 'FULFILLED', 'captured', true").await;
    let session = &fixture.service.db;
    for (state, order_id) in [(OrderState::Pending, pending), (OrderState::Confirmed, confirmed)] {
        let before = rows_read(session, "order").await;
        let request = SearchOrdersRequest { state: state.into(), ..Default::default() };
        assert_eq!(fixture.search(request).await.expect("a page"), [order_id.to_string()]);
        let rows = rows_read(session, "order").await - before;
        assert!(rows < 100, "to find what is {state:?}, it has read {rows} rows");
    }
}
