//! Change a product. Orders that were placed keep what they were quoted.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use chassis::rpc::update::{Mask, check_etag};
use contracts::souk::product::v1::{UpdateProductRequest, UpdateProductResponse};

use crate::category::parse_category;
use crate::error::Error;
use crate::product::{Product, State, parse_id, parse_price};
use crate::service::Service;

pub(crate) async fn update(
    service: &Service,
    caller: &Caller,
    request: UpdateProductRequest,
) -> Result<UpdateProductResponse, Error> {
    let wanted = request.product.unwrap_or_default();
    let product_id = parse_id(&wanted.product_id, "product.product_id")?;
    let mask =
        Mask::parse(request.update_mask, &["title", "description", "price", "category_id", "language", "images"])?;
    let title = mask.pick("title", Some(wanted.title).filter(|it| !it.is_empty()));
    let description = mask.pick("description", Some(wanted.description).filter(|it| !it.is_empty()));
    let price = mask.pick("price", wanted.price.map(Some)).map(parse_price);
    let category_id = mask.pick("category_id", Some(wanted.category_id).filter(|it| !it.is_empty()));
    let category_id = category_id.map(|it| parse_category(&it, "product.category_id")).transpose()?;
    let language = mask.pick("language", Some(wanted.language).filter(|it| !it.is_empty()));
    let images = mask.pick("images", Some(wanted.images).filter(|it| !it.is_empty()));
    let mut violations = Vec::new();
    if title.as_deref() == Some("") {
        violations.push(("product.title".to_owned(), "must have 1 to 200 characters".to_owned()));
    }
    let price = price.and_then(|price| price.map_err(|violation| violations.push(violation)).ok());
    if !violations.is_empty() {
        return Err(chassis::Error::FieldsInvalid(violations).into());
    }

    let mut tx = service.db.begin().await?;
    let mut product = Product::lock(&mut tx, product_id).await?.ok_or(Error::ProductNotFound)?;
    check_etag(&wanted.etag, product.version)?;
    mask.keep("product.sku", &wanted.sku, &product.sku)?;
    if product.state == State::Archived {
        return Err(Error::ProductArchived);
    }
    let before = product.clone();
    product.title = title.unwrap_or(product.title);
    product.description = description.unwrap_or(product.description);
    product.category_id = category_id.unwrap_or(product.category_id);
    product.language = language.unwrap_or(product.language);
    if let Some(images) = images {
        (product.image_urls, product.image_alts) = images.into_iter().map(|image| (image.url, image.alt)).unzip();
    }
    if let Some(price) = price {
        (product.currency, product.price_minor) = (price.currency, price.minor);
    }
    // Without a change there is no new version, so that etags stay valid.
    let changed = product != before;
    if changed {
        let unknown = Error::CategoryUnknown { field: "product.category_id" };
        let saved = product.save(&mut tx, service.clock.now()).await;
        saved.map_err(on_constraint("product_category", unknown))?;
    }
    tx.commit().await?;
    if changed {
        service.cache.changed(product_id, product.version).await;
        let (version, actor) = (product.version, caller.actor());
        tracing::info!(%product_id, sku = product.sku, version, actor, "a product was changed");
    }
    Ok(UpdateProductResponse { product: Some(product.into_proto()) })
}
