//! Where an order is sent. Personal data: it is in no event and in no stored response, and it goes when the customer is erased.

use chassis::rpc::update::{check_etag, etag};
use chassis::{Caller, Unexpected};
use contracts::souk::order::v1::*;
use sqlx::PgConnection;

use crate::error::Error;
use crate::ids::OrderId;
use crate::order::Order;
use crate::service::Service;

pub(crate) async fn get(
    service: &Service,
    caller: &Caller,
    request: GetShippingAddressRequest,
) -> Result<GetShippingAddressResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let mut db = service.db.acquire().await?;
    Order::find(&mut db, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    let found = sqlx::query!(
        "select recipient, lines, city, postal_code, country, version from order_shipping_address where order_id = $1",
        order_id as OrderId,
    );
    let row = found.fetch_optional(&mut *db).await?.ok_or(Error::ShippingAddressNotFound)?;
    let address = ShippingAddress {
        recipient: row.recipient,
        lines: row.lines,
        city: row.city,
        postal_code: row.postal_code,
        country: row.country,
    };
    Ok(GetShippingAddressResponse { address: Some(address), etag: etag(row.version) })
}

/// The order is locked, so that it does not end meanwhile.
pub(crate) async fn update(
    service: &Service,
    caller: &Caller,
    request: UpdateShippingAddressRequest,
) -> Result<UpdateShippingAddressResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let address = request.address.ok_or_else(|| chassis::Error::field("address", "is required"))?;
    let mut tx = service.db.begin().await?;
    let order = Order::lock(&mut tx, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    if order.state.has_ended() {
        return Err(Error::ShippingAddressFinal { state: order.state });
    }
    let current = version(&mut tx, order_id).await?.ok_or(Error::ShippingAddressNotFound)?;
    check_etag(&request.etag, current)?;
    let replaced = sqlx::query_scalar!(
        "update order_shipping_address
         set recipient = $2, lines = $3, city = $4, postal_code = $5, country = $6, version = version + 1
         where order_id = $1 returning version",
        order_id as OrderId,
        address.recipient,
        &address.lines,
        address.city,
        address.postal_code,
        address.country,
    );
    // A job may have erased it meanwhile.
    let replaced = replaced.fetch_optional(&mut *tx).await?.ok_or(Error::ShippingAddressNotFound)?;
    tx.commit().await?;
    tracing::info!(%order_id, actor = caller.actor(), "the shipping address of an order was replaced");
    Ok(UpdateShippingAddressResponse { address: Some(address), etag: etag(replaced) })
}

/// Each correction is another version. The order is locked.
pub(crate) async fn version(db: &mut PgConnection, order_id: OrderId) -> Result<Option<i64>, Unexpected> {
    let version =
        sqlx::query_scalar!("select version from order_shipping_address where order_id = $1", order_id as OrderId,);
    Ok(version.fetch_optional(db).await?)
}
