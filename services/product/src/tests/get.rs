use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::{fields, reason};
use tonic::Code;
use uuid::Uuid;

use super::Fixture;
use super::create::mug;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_batch_says_what_is_missing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let unknown = Uuid::now_v7().to_string();
    let ask = BatchGetProductsRequest { product_ids: vec![unknown.clone(), product.product_id.clone()] };
    let batch = fixture.client.clone().batch_get_products(ask).await.expect("public").into_inner();
    assert_eq!((batch.products, batch.missing_product_ids), (vec![product], vec![unknown]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unknown_product_is_not_found(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ask = GetProductRequest { product_id: Uuid::now_v7().to_string() };
    let refused = fixture.client.clone().get_product(ask).await.expect_err("unknown");
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "PRODUCT_NOT_FOUND@souk.product".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_that_is_too_long_is_refused_before_its_items_are_looked_at(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ask = BatchGetProductsRequest { product_ids: vec![String::new(); 250_000] };
    let refused = fixture.client.clone().batch_get_products(ask).await.expect_err("far too many");
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["product_ids".into()]), "{refused:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn ids_are_the_same_in_capitals(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let product = fixture.create(mug("MUG-1", "Mug")).await.expect("created");
    let product_id = product.product_id.to_uppercase();
    let ask = GetProductRequest { product_id: product_id.clone() };
    let got = fixture.client.clone().get_product(ask).await.expect("it is there").into_inner();
    assert_eq!(got.product.as_ref(), Some(&product));
    let ask = BatchGetProductsRequest { product_ids: vec![product_id.clone()] };
    assert_eq!(fixture.client.clone().batch_get_products(ask).await.expect("public").into_inner().products, [product]);
    let named = Product { product_id, title: "Cup".into(), ..Default::default() };
    assert_eq!(fixture.update(named, &["title"]).await.expect("changed").title, "Cup");
}
