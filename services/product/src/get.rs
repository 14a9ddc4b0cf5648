//! Read one product, or some, archived or not.

use std::collections::HashMap;

use contracts::souk::product::v1::*;

use crate::Service;
use crate::error::Error;
use crate::product::{self, parse_id};

pub(crate) async fn get(service: &Service, request: GetProductRequest) -> Result<GetProductResponse, Error> {
    let product_id = parse_id(&request.product_id, "product_id")?;
    let product = sqlx::query_as!(
        product::Product,
        "select product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at
         from product where product_id = $1",
        product_id,
    )
    .fetch_optional(&service.db)
    .await?;
    Ok(GetProductResponse { product: Some(product.ok_or(Error::ProductNotFound)?.into_proto()) })
}

pub(crate) async fn batch_get(
    service: &Service,
    request: BatchGetProductsRequest,
) -> Result<BatchGetProductsResponse, Error> {
    let asked = request.product_ids.iter().enumerate();
    let ids = asked.map(|(at, id)| parse_id(id, &format!("product_ids[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    let found = sqlx::query_as!(
        product::Product,
        "select product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at
         from product where product_id = any($1)",
        &ids,
    )
    .fetch_all(&service.db)
    .await?;
    let found: HashMap<_, _> = found.into_iter().map(|product| (product.product_id, product)).collect();
    let mut response = BatchGetProductsResponse::default();
    for id in ids {
        match found.get(&id) {
            Some(product) => response.products.push(product.clone().into_proto()),
            None => response.missing_product_ids.push(id.to_string()),
        }
    }
    Ok(response)
}
