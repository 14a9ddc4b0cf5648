//! Take a product out of the catalogue, for good.

use chassis::Caller;
use contracts::souk::product::v1::{ArchiveProductRequest, ArchiveProductResponse};

use crate::Service;
use crate::error::Error;
use crate::product::{Product, parse_id};

pub(crate) async fn archive(
    service: &Service,
    caller: &Caller,
    request: ArchiveProductRequest,
) -> Result<ArchiveProductResponse, Error> {
    let product_id = parse_id(&request.product_id, "product_id")?;

    let mut tx = service.db.begin().await?;
    let mut product = Product::lock(&mut tx, product_id).await?.ok_or(Error::ProductNotFound)?;
    let changed = !product.is_archived();
    if changed {
        product.state = "ARCHIVED".to_owned();
        product.save(&mut tx, service.clock.now()).await?;
    }
    tx.commit().await?;
    if changed {
        tracing::info!(%product_id, sku = product.sku, actor = caller.actor(), "a product was archived");
    }
    Ok(ArchiveProductResponse { product: Some(product.into_proto()) })
}
