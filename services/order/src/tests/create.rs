use std::collections::BTreeMap;

use contracts::souk::order::v1::*;
use contracts::souk::product::v1::{ItemQuote, ProductState};
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::Fixture;
use crate::create::price;
use crate::ids::ProductId;

impl Fixture {
    /// One mug for 12.50 EUR, as the customer of this shop.
    pub(super) fn wanted(&self, key: &str) -> CreateOrderRequest {
        let product_id = self.catalogue.add("MUG", Money::new("EUR", 1_250));
        CreateOrderRequest {
            request_id: key.into(),
            items: vec![OrderItem { product_id, quantity: 2 }],
            payment_method: "pm_card_visa".into(),
            ..Default::default()
        }
    }

    pub(super) async fn create(&self, request: CreateOrderRequest) -> Result<Order, Status> {
        let response = self.client.clone().create_order(self.kit.customer(CUSTOMER, request)).await?;
        Ok(response.into_inner().order.expect("a success has the order"))
    }

    pub(super) async fn place(&self) -> Uuid {
        let key = Uuid::now_v7().to_string();
        let order = self.create(self.wanted(&key)).await.expect("placed");
        Uuid::parse_str(&order.order_id).expect("a UUID")
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_is_placed_at_the_catalogues_prices(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.create(fixture.wanted("k1")).await.expect("placed");
    assert_eq!(
        (order.state(), order.version, order.total.clone()),
        (OrderState::Pending, 1, Some(Money::new("EUR", 2_500)))
    );
    assert_eq!(order.items[0].unit_price, Some(Money::new("EUR", 1_250)));
    let order_id = Uuid::parse_str(&order.order_id).expect("a UUID");
    assert_eq!(fixture.order(order_id).await, order, "what is read is what the response had");
    assert_eq!(fixture.published(order_id).await, ["OrderPlaced"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_same_key_is_one_order_even_if_the_product_went_meanwhile(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.wanted("k1");
    let first = fixture.create(request.clone()).await.expect("placed");
    fixture.catalogue.archive_all();
    assert_eq!(fixture.create(request.clone()).await.expect("replayed"), first);
    let other = CreateOrderRequest { payment_method: "pm_other".into(), ..request };
    let reused = fixture.create(other).await.expect_err("another body");
    assert_eq!((reused.code(), reason(&reused)), (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED@souk.order".into()));
    let count = sqlx::query_scalar!(r#"select count(*) as "n!" from "order""#)
        .fetch_one(&fixture.service.db)
        .await
        .expect("a count");
    assert_eq!(count, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn unavailable_products_are_named_by_their_place(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut request = fixture.wanted("k1");
    request.items.push(OrderItem { product_id: Uuid::now_v7().to_string(), quantity: 1 });
    let unknown = fixture.create(request.clone()).await.expect_err("unknown");
    assert_eq!(
        (reason(&unknown), fields(&unknown)),
        ("PRODUCT_UNAVAILABLE@souk.order".into(), vec!["items[1].product_id".into()])
    );
    fixture.catalogue.archive_all();
    let archived = fixture.create(request).await.expect_err("archived");
    assert_eq!(fields(&archived), ["items[0].product_id", "items[1].product_id"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bad_requests_name_what_is_wrong(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let good = fixture.wanted("k1");
    let item = |quantity| OrderItem { quantity, ..good.items[0].clone() };
    for (request, field) in [
        (CreateOrderRequest { cart_etag: "v1".into(), ..good.clone() }, "cart_etag"),
        (CreateOrderRequest { items: vec![item(0)], ..good.clone() }, "items[0].quantity"),
        (CreateOrderRequest { items: vec![item(-1)], ..good.clone() }, "items[0].quantity"),
        (CreateOrderRequest { items: vec![item(1_000)], ..good.clone() }, "items[0].quantity"),
        (CreateOrderRequest { items: vec![item(1), item(2)], ..good.clone() }, "items[1].product_id"),
        (CreateOrderRequest { payment_method: "4242424242424242".into(), ..good.clone() }, "payment_method"),
        (CreateOrderRequest { request_id: String::new(), ..good.clone() }, "request_id"),
        (CreateOrderRequest { expected_total: Some(Money::new("eur", 1)), ..good.clone() }, "expected_total.currency"),
        (CreateOrderRequest { expected_total: Some(Money::new("EUR", 0)), ..good.clone() }, "expected_total.minor"),
        (
            CreateOrderRequest { shipping_address: Some(ShippingAddress::default()), ..good.clone() },
            "shipping_address.recipient",
        ),
    ] {
        let refused = fixture.create(request).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert!(fields(&refused).contains(&field.to_owned()), "{field}: {:?}", fields(&refused));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn totals_are_of_one_currency_and_bounded(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut mixed = fixture.wanted("k1");
    let dollars = fixture.catalogue.add("CUP", Money::new("USD", 1));
    mixed.items.push(OrderItem { product_id: dollars, quantity: 1 });
    assert_eq!(reason(&fixture.create(mixed).await.expect_err("mixed")), "CURRENCY_MIXED@souk.order");
    let dear = fixture.catalogue.add("CAR", Money::new("EUR", 99_999_999));
    let items = vec![OrderItem { product_id: dear, quantity: 2 }];
    let dear = CreateOrderRequest { items, ..fixture.wanted("k2") };
    assert_eq!(reason(&fixture.create(dear).await.expect_err("too much")), "TOTAL_OUT_OF_RANGE@souk.order");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn validating_prices_without_ordering(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = CreateOrderRequest { validate_only: true, request_id: String::new(), ..fixture.wanted("") };
    let priced = fixture.create(request).await.expect("priced");
    assert_eq!((priced.total, priced.order_id), (Some(Money::new("EUR", 2_500)), String::new()));
    assert_eq!(testkit::published(&fixture.service.db).await, []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_at_another_total_than_the_customer_expects_is_refused_with_both(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = CreateOrderRequest { expected_total: Some(Money::new("EUR", 2_500)), ..fixture.wanted("k1") };
    let validation = CreateOrderRequest { validate_only: true, request_id: String::new(), ..request.clone() };
    fixture.create(validation.clone()).await.expect("it costs what is expected");
    for (price, total) in [(Money::new("EUR", 5_000), "10000"), (Money::new("USD", 1_250), "2500")] {
        fixture.catalogue.price_all(price.clone());
        for request in [&request, &validation] {
            let refused = fixture.create(request.clone()).await.expect_err("it costs something else by now");
            assert_eq!(
                (refused.code(), reason(&refused)),
                (Code::FailedPrecondition, "PRICE_CHANGED@souk.order".into())
            );
            let metadata = refused.get_details_error_info().expect("an ErrorInfo").metadata;
            let metadata: BTreeMap<_, _> =
                metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let expected = [("expected_currency", "EUR"), ("expected_minor", "2500")];
            let actual = [("actual_currency", price.currency.as_str()), ("actual_minor", total)];
            assert_eq!(metadata, BTreeMap::from_iter(expected.into_iter().chain(actual)));
            let violations = refused.get_details_precondition_failure().expect("a PreconditionFailure").violations;
            assert_eq!(violations.len(), 1);
            assert_eq!((&*violations[0].r#type, &*violations[0].subject), ("PRICE_CHANGED", "expected_total"));
        }
    }
    assert_eq!(testkit::published(&fixture.service.db).await, [], "nothing was ordered");
    // Nothing is stored under the key either.
    let agreed = CreateOrderRequest { expected_total: Some(Money::new("USD", 2_500)), ..request };
    let order = fixture.create(agreed).await.expect("placed");
    assert_eq!(order.total, Some(Money::new("USD", 2_500)));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_expected_total_belongs_to_the_request_that_a_key_stands_for(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = CreateOrderRequest { expected_total: Some(Money::new("EUR", 2_500)), ..fixture.wanted("k1") };
    let first = fixture.create(request.clone()).await.expect("placed");
    fixture.catalogue.price_all(Money::new("EUR", 5_000));
    assert_eq!(fixture.create(request.clone()).await.expect("a repeat gets the same response"), first);
    for expected_total in [None, Some(Money::new("EUR", 10_000))] {
        let reused = fixture.create(CreateOrderRequest { expected_total, ..request.clone() }).await;
        assert_eq!(reason(&reused.expect_err("another request")), "IDEMPOTENCY_KEY_REUSED@souk.order");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn no_personal_data_is_published(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let address = ShippingAddress {
        recipient: "Ada Lovelace".into(),
        lines: vec!["12 St James's Square".into()],
        city: "London".into(),
        postal_code: "SW1Y".into(),
        country: "GB".into(),
    };
    fixture
        .create(CreateOrderRequest { shipping_address: Some(address), ..fixture.wanted("k1") })
        .await
        .expect("placed");
    let payload = testkit::published(&fixture.service.db).await.remove(0).payload;
    assert!(!String::from_utf8_lossy(&payload).contains("Lovelace"));
    let rows = sqlx::query_scalar!("select recipient from order_shipping_address")
        .fetch_all(&fixture.service.db)
        .await
        .expect("rows");
    assert_eq!(rows, ["Ada Lovelace"]);
}

#[test]
fn quotes_for_other_products_than_were_asked_for_are_no_prices() {
    let (mug, cup) = (ProductId::new(Uuid::now_v7()), ProductId::new(Uuid::now_v7()));
    let item = |product_id: ProductId| OrderItem { product_id: product_id.to_string(), quantity: 2 };
    let quote = |product_id: ProductId| ItemQuote {
        product_id: product_id.to_string(),
        state: ProductState::Active.into(),
        unit_price: Some(Money::new("EUR", 100)),
        ..Default::default()
    };
    let (items, asked) = ([item(mug), item(cup)], [mug, cup]);
    for quotes in [vec![quote(mug)], vec![quote(cup), quote(mug)], vec![quote(mug), quote(cup), quote(mug)], vec![]] {
        price(&items, &asked, quotes).expect_err("not what was asked for");
    }
    let (lines, total) = price(&items, &asked, vec![quote(mug), quote(cup)]).expect("prices");
    assert_eq!((lines.len(), total), (2, Money::new("EUR", 400)));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_prices_there_is_no_order_but_an_old_answer_is_given(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.wanted("k1");
    let first = fixture.create(request.clone()).await.expect("placed");
    fixture.catalogue.fail(u32::MAX);
    assert_eq!(fixture.create(request).await.expect("replayed"), first);
    let refused = fixture.create(fixture.wanted("k2")).await.expect_err("there are no prices");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "UNAVAILABLE@souk.order".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn however_much_is_wrong_the_answer_fits_into_headers(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let item = || OrderItem { product_id: Uuid::now_v7().to_string(), quantity: 0 };
    let bad = CreateOrderRequest { items: (0..100).map(|_| item()).collect(), ..fixture.wanted("k1") };
    let refused = fixture.create(bad).await.expect_err("100 items of nothing");
    assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "REQUEST_INVALID@souk.order".into()));
    assert!(fields(&refused).contains(&"items[7].quantity".to_owned()), "{refused:?}");
    assert!(refused.message().contains(" more"), "{refused:?}");
    assert_eq!(fields(&refused).len(), 10);

    let unknown = |quantity| (0..100).map(move |_| OrderItem { quantity, ..item() }).collect();
    let refused = fixture.create(CreateOrderRequest { items: unknown(1), ..fixture.wanted("k1") }).await;
    let refused = refused.expect_err("the catalogue does not know them");
    assert_eq!(reason(&refused), "PRODUCT_UNAVAILABLE@souk.order");
    assert_eq!(fields(&refused).len(), 10);
    assert!(refused.message().ends_with("; 90 more fields"), "{refused:?}");
}
