//! Change title, description or price. Orders that were placed keep what they were quoted.

use chassis::update::{Mask, check_etag};
use contracts::souk::product::v1::{UpdateProductRequest, UpdateProductResponse};

use crate::Service;
use crate::error::Error;
use crate::product::{Product, parse_id, parse_price};

pub(crate) async fn update(service: &Service, request: UpdateProductRequest) -> Result<UpdateProductResponse, Error> {
    let wanted = request.product.unwrap_or_default();
    let product_id = parse_id(&wanted.product_id, "product.product_id")?;
    let mask = Mask::parse(request.update_mask, &["title", "description", "price"])?;
    let title = mask.pick("title", Some(wanted.title).filter(|it| !it.is_empty()));
    if title.as_deref() == Some("") {
        return Err(chassis::Error::field("product.title", "must have 1 to 200 characters").into());
    }
    let description = mask.pick("description", Some(wanted.description).filter(|it| !it.is_empty()));
    let price = mask.pick("price", wanted.price.map(Some)).map(parse_price).transpose()?;

    let mut tx = service.db.begin().await?;
    let mut product = Product::lock(&mut tx, product_id).await?.ok_or(Error::ProductNotFound)?;
    check_etag(&wanted.etag, product.version)?;
    if product.is_archived() {
        return Err(Error::ProductArchived);
    }
    product.title = title.unwrap_or(product.title);
    product.description = description.unwrap_or(product.description);
    if let Some(price) = price {
        (product.currency, product.price_minor) = (price.currency, price.minor);
    }
    product.save(&mut tx, service.clock.now()).await?;
    tx.commit().await?;
    Ok(UpdateProductResponse { product: Some(product.into_proto()) })
}
