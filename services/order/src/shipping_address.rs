//! Where an order is sent. Personal data: it is in no event and in no stored response, and it goes when the customer is erased.

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
    let address = read(&mut db, order_id).await?.ok_or(Error::ShippingAddressNotFound)?;
    Ok(GetShippingAddressResponse { address: Some(address) })
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
    let replaced = sqlx::query!(
        "update order_shipping_address set recipient = $2, lines = $3, city = $4, postal_code = $5, country = $6
         where order_id = $1",
        order_id as OrderId,
        address.recipient,
        &address.lines,
        address.city,
        address.postal_code,
        address.country,
    );
    if replaced.execute(&mut *tx).await?.rows_affected() == 0 {
        return Err(Error::ShippingAddressNotFound);
    }
    tx.commit().await?;
    tracing::info!(%order_id, actor = caller.actor(), "the shipping address of an order was replaced");
    Ok(UpdateShippingAddressResponse { address: Some(address) })
}

async fn read(db: &mut PgConnection, order_id: OrderId) -> Result<Option<ShippingAddress>, Unexpected> {
    let address = sqlx::query_as!(
        ShippingAddress,
        "select recipient, lines, city, postal_code, country from order_shipping_address where order_id = $1",
        order_id as OrderId,
    );
    Ok(address.fetch_optional(db).await?)
}
