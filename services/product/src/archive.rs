//! Archive a product: it leaves the catalogue for good.

use chassis::Caller;
use contracts::souk::product::v1::{ArchiveProductRequest, ArchiveProductResponse};

use crate::error::Error;
use crate::product::{Product, State, parse_id};
use crate::service::Service;

pub(crate) async fn archive(
    service: &Service,
    caller: &Caller,
    request: ArchiveProductRequest,
) -> Result<ArchiveProductResponse, Error> {
    let product_id = parse_id(&request.product_id, "product_id")?;

    let mut tx = service.db.begin().await?;
    let mut product = Product::lock(&mut tx, product_id).await?.ok_or(Error::ProductNotFound)?;
    let changed = product.state == State::Active;
    if changed {
        product.state = State::Archived;
        product.save(&mut tx, service.clock.now()).await?;
    }
    tx.commit().await?;
    if changed {
        service.cache.changed(product_id, product.version).await;
        tracing::info!(%product_id, sku = product.sku, actor = caller.actor(), "a product was archived");
    }
    Ok(ArchiveProductResponse { product: Some(product.into_proto()) })
}
