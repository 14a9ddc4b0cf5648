use contracts::souk::product::v1::*;
use sqlx::PgPool;
use testkit::reason;
use tonic::Code;
use uuid::Uuid;

use super::{Shelf, mug};

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_batch_says_what_is_missing(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let product = shelf.create(mug("MUG-1", "Mug")).await.expect("created");
    let unknown = Uuid::now_v7().to_string();
    let ask = BatchGetProductsRequest { product_ids: vec![unknown.clone(), product.product_id.clone()] };
    let batch = shelf.client.clone().batch_get_products(ask).await.expect("public").into_inner();
    assert_eq!((batch.products, batch.missing_product_ids), (vec![product], vec![unknown]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unknown_product_is_not_found(db: PgPool) {
    let shelf = Shelf::open(db).await;
    let ask = GetProductRequest { product_id: Uuid::now_v7().to_string() };
    let refused = shelf.client.clone().get_product(ask).await.expect_err("unknown");
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "PRODUCT_NOT_FOUND@souk.product".into()));
}
