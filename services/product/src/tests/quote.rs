use contracts::souk::product::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use tonic::Code;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn quotes_are_for_the_order_service_and_in_the_order_asked(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let unknown = Uuid::now_v7().to_string();
    let ask = QuoteItemsRequest { product_ids: vec![unknown.clone(), product.product_id.clone()] };
    let quotes = fixture.client_of("order").await.quote_items(ask.clone()).await.expect("for orders");
    let quotes = quotes.into_inner().quotes;
    assert_eq!((quotes[0].product_id.as_str(), quotes[0].state()), (unknown.as_str(), ProductState::Unspecified));
    assert_eq!((quotes[1].sku.as_str(), quotes[1].unit_price.clone()), ("MUG-1", Some(Money::new("EUR", 1_250))));
    let stranger = fixture.client.clone().quote_items(fixture.kit.operator(ask)).await.expect_err("not a service");
    assert_eq!(stranger.code(), Code::PermissionDenied);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_quote_says_what_is_archived(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    fixture.archive(&product.product_id).await.expect("archived");
    let ask = QuoteItemsRequest { product_ids: vec![product.product_id] };
    let quotes = fixture.client_of("order").await.quote_items(ask.clone()).await.expect("for orders");
    assert_eq!(quotes.into_inner().quotes[0].state(), ProductState::Archived);
    let other = fixture.client_of("payment").await.quote_items(ask).await.expect_err("another service");
    assert_eq!(other.code(), Code::PermissionDenied);
}
