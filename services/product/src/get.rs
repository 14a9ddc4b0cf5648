//! Read one product, or some, archived or not.

use std::collections::HashMap;

use contracts::souk::product::v1::*;

use crate::error::Error;
use crate::product::{Product, parse_id, parse_ids};
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetProductRequest) -> Result<GetProductResponse, Error> {
    let product_id = parse_id(&request.product_id, "product_id")?;
    let product = service.cache.get(&service.db, product_id).await?.ok_or(Error::ProductNotFound)?;
    Ok(GetProductResponse { product: Some(product) })
}

pub(crate) async fn batch_get(
    service: &Service,
    request: BatchGetProductsRequest,
) -> Result<BatchGetProductsResponse, Error> {
    let product_ids = parse_ids(&request.product_ids)?;
    let found = Product::find_all(&service.db, &product_ids).await?;
    let found: HashMap<_, _> = found.into_iter().map(|product| (product.product_id, product)).collect();
    let mut response = BatchGetProductsResponse::default();
    for product_id in product_ids {
        match found.get(&product_id) {
            Some(product) => response.products.push(product.clone().into_proto()),
            None => response.missing_product_ids.push(product_id.to_string()),
        }
    }
    Ok(response)
}
