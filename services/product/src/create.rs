//! Add a product. Its SKU is its idempotency key: a repeated call finds it taken.

use contracts::souk::product::v1::{CreateProductRequest, CreateProductResponse};

use crate::Service;
use crate::error::Error;
use crate::product::{Product, parse_price};

pub(crate) async fn create(service: &Service, request: CreateProductRequest) -> Result<CreateProductResponse, Error> {
    let wanted = request.product.unwrap_or_default();
    if wanted.sku.is_empty() {
        return Err(chassis::Error::field("product.sku", "is required").into());
    }
    if wanted.title.is_empty() {
        return Err(chassis::Error::field("product.title", "is required").into());
    }
    let price = parse_price(wanted.price)?;

    let now = service.clock.now();
    let product = Product {
        product_id: service.clock.new_id(),
        sku: wanted.sku,
        title: wanted.title,
        description: wanted.description,
        currency: price.currency,
        price_minor: price.minor,
        state: "ACTIVE".to_owned(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let mut db = service.db.acquire().await?;
    product.insert(&mut db).await?;
    Ok(CreateProductResponse { product: Some(product.into_proto()) })
}
