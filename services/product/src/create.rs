//! Add a product. Its SKU is its idempotency key: a repeated call finds it taken.

use chassis::Caller;
use contracts::souk::product::v1::{CreateProductRequest, CreateProductResponse};

use crate::Service;
use crate::error::Error;
use crate::product::{Product, parse_price};

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateProductRequest,
) -> Result<CreateProductResponse, Error> {
    let wanted = request.product.unwrap_or_default();
    let mut violations = Vec::new();
    for (field, text) in [("product.sku", &wanted.sku), ("product.title", &wanted.title)] {
        if text.is_empty() {
            violations.push((field, "is required".to_owned()));
        }
    }
    let price = parse_price(wanted.price).map_err(|violation| violations.push(violation));
    let Some(price) = price.ok().filter(|_| violations.is_empty()) else { return Err(Error::Invalid(violations)) };

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
    tracing::info!(product_id = %product.product_id, sku = product.sku, actor = caller.actor(), "a product was created");
    Ok(CreateProductResponse { product: Some(product.into_proto()) })
}
