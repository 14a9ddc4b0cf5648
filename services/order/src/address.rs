//! Where an order is sent: personal data, in a row of its own that can be deleted.

use contracts::souk::order::v1::ShippingAddress;
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) async fn insert(db: &mut PgConnection, order_id: Uuid, address: &ShippingAddress) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into order_shipping_address (order_id, recipient, lines, city, postal_code, country)
         values ($1, $2, $3, $4, $5, $6)",
        order_id,
        address.recipient,
        &address.lines,
        address.city,
        address.postal_code,
        address.country,
    )
    .execute(db)
    .await?;
    Ok(())
}
