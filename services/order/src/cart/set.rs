//! Set how many of a product the cart has.

use chassis::Caller;
use chassis::rpc::update::{check_etag, etag};
use contracts::souk::order::v1::{SetCartItemRequest, SetCartItemResponse};

use super::{MAX_ITEMS, lock};
use crate::error::Error;
use crate::ids::{ProductId, UserId};
use crate::service::Service;

pub(super) async fn set(
    service: &Service,
    caller: &Caller,
    request: SetCartItemRequest,
) -> Result<SetCartItemResponse, Error> {
    let user_id = UserId::new(caller.user_id()?);
    let product_id = ProductId::parse(&request.product_id);
    let product_id = product_id.ok_or_else(|| chassis::Error::field("product_id", "must be a UUID"))?;
    let now = service.clock.now();

    let mut tx = service.db.begin().await?;
    let version = lock(&mut tx, user_id, now).await?;
    check_etag(&request.etag, version)?;
    let before = sqlx::query!(
        r#"select count(*) as "items!", max(quantity) filter (where product_id = $2) as quantity
           from cart_item where user_id = $1"#,
        user_id as UserId,
        product_id as ProductId,
    );
    let before = before.fetch_one(&mut *tx).await?;
    // Without a change there is no new version, so that etags stay valid.
    if before.quantity == Some(request.quantity) {
        return Ok(SetCartItemResponse { etag: etag(version) });
    }
    if before.quantity.is_none() && before.items >= MAX_ITEMS {
        return Err(Error::CartFull);
    }
    let version = sqlx::query_scalar!(
        "with item as (
           insert into cart_item (user_id, product_id, quantity, added_at) values ($1, $2, $3, $4)
           on conflict (user_id, product_id) do update set quantity = excluded.quantity
         )
         update cart set version = version + 1, updated_at = $4 where user_id = $1 returning version",
        user_id as UserId,
        product_id as ProductId,
        request.quantity,
        now,
    );
    let version = version.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(SetCartItemResponse { etag: etag(version) })
}
