//! Remove a product from the cart.

use chassis::Caller;
use chassis::rpc::update::{check_etag, etag};
use contracts::souk::order::v1::{RemoveCartItemRequest, RemoveCartItemResponse};

use super::{lock, remove_items};
use crate::error::Error;
use crate::ids::{ProductId, UserId};
use crate::service::Service;

pub(super) async fn remove(
    service: &Service,
    caller: &Caller,
    request: RemoveCartItemRequest,
) -> Result<RemoveCartItemResponse, Error> {
    let user_id = UserId::new(caller.user_id()?);
    let product_id = ProductId::parse(&request.product_id);
    let product_id = product_id.ok_or_else(|| chassis::Error::field("product_id", "must be a UUID"))?;
    let now = service.clock.now();

    let mut tx = service.db.begin().await?;
    let version = lock(&mut tx, user_id, now).await?;
    check_etag(&request.etag, version)?;
    let version = remove_items(&mut tx, user_id, Some(product_id), now).await?.unwrap_or(version);
    tx.commit().await?;
    Ok(RemoveCartItemResponse { etag: etag(version) })
}
