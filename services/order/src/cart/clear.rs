//! Remove everything from the cart.

use chassis::Caller;
use chassis::rpc::update::{check_etag, etag};
use contracts::souk::order::v1::{ClearCartRequest, ClearCartResponse};

use super::{lock, remove_items};
use crate::error::Error;
use crate::ids::UserId;
use crate::service::Service;

pub(super) async fn clear(
    service: &Service,
    caller: &Caller,
    request: ClearCartRequest,
) -> Result<ClearCartResponse, Error> {
    let (user_id, now) = (UserId::new(caller.user_id()?), service.clock.now());
    let mut tx = service.db.begin().await?;
    let version = lock(&mut tx, user_id, now).await?;
    check_etag(&request.etag, version)?;
    let version = remove_items(&mut tx, user_id, None, now).await?.unwrap_or(version);
    tx.commit().await?;
    Ok(ClearCartResponse { etag: etag(version) })
}
