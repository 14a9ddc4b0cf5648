//! Add a product. Its SKU is its idempotency key: a repeated call finds it taken.
//!
//! A call that only validates does all of it and rolls back, so that nothing is checked in two ways.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use contracts::souk::product::v1::{self as proto, CreateProductRequest, CreateProductResponse};

use crate::category::parse_category;
use crate::error::Error;
use crate::product::{Product, ProductId, State, parse_price};
use crate::service::Service;

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateProductRequest,
) -> Result<CreateProductResponse, Error> {
    let wanted = request.product.unwrap_or_default();
    let mut violations = Vec::new();
    for (field, text) in [("product.sku", &wanted.sku), ("product.title", &wanted.title)] {
        if text.is_empty() {
            violations.push((field.to_owned(), "is required".to_owned()));
        }
    }
    let category_id = parse_category(&wanted.category_id, "product.category_id")?;
    let price = parse_price(wanted.price).map_err(|violation| violations.push(violation));
    let Some(price) = price.ok().filter(|_| violations.is_empty()) else {
        return Err(chassis::Error::FieldsInvalid(violations).into());
    };

    let now = service.clock.now();
    let product = Product {
        product_id: ProductId::new(service.clock.new_id()),
        sku: wanted.sku,
        title: wanted.title,
        description: wanted.description,
        currency: price.currency,
        price_minor: price.minor,
        category_id,
        language: wanted.language,
        image_urls: wanted.images.iter().map(|image| image.url.clone()).collect(),
        image_alts: wanted.images.into_iter().map(|image| image.alt).collect(),
        state: State::Active,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let taken = Error::SkuTaken { sku: product.sku.clone() };
    let mut tx = service.db.begin().await?;
    if let Err(error) = product.insert(&mut tx).await {
        return Err(match on_constraint("product_sku", taken)(error) {
            Error::Chassis(chassis::Error::Unexpected(error)) => {
                on_constraint("product_category", Error::CategoryUnknown { field: "product.category_id" })(error)
            }
            error => error,
        });
    }
    if request.validate_only {
        tx.rollback().await?;
        let valid = proto::Product {
            product_id: String::new(),
            create_time: None,
            update_time: None,
            etag: String::new(),
            ..product.into_proto()
        };
        return Ok(CreateProductResponse { product: Some(valid) });
    }
    tx.commit().await?;
    tracing::info!(product_id = %product.product_id, sku = product.sku, actor = caller.actor(), "a product was created");
    Ok(CreateProductResponse { product: Some(product.into_proto()) })
}
