//! What becomes of the cart of an order that has ended, in the transaction that records it: of one that failed, the lines go back.

use std::sync::Arc;

use chassis::{Next, Unexpected};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::MAX_ITEMS;
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::State;

const MAX_ORDERS: i64 = 100;

/// Puts back the lines of orders that a replica of the release without carts has ended, while it ran beside this one. It reads all orders
/// of carts that go on, so it is not often done.
pub(crate) async fn put_back_missed(service: Arc<Service>) -> Result<Next, Unexpected> {
    let mut tx = service.db.begin().await?;
    let ended = sqlx::query!(
        r#"select order_id as "order_id: OrderId", state as "state: State" from "order"
           where order_id in (select order_id from cart_order) and state not in ('PENDING', 'RESERVED', 'CONFIRMED')
           limit $1 for no key update skip locked"#,
        MAX_ORDERS,
    );
    let ended: Vec<_> = ended.fetch_all(&mut *tx).await?.into_iter().map(|row| (row.order_id, row.state)).collect();
    if ended.is_empty() {
        return Ok(Next::AfterPause);
    }
    put_back_failed(&mut tx, &ended, service.clock.now()).await?;
    tx.commit().await?;
    tracing::info!(count = ended.len(), "the carts of orders that another release has ended are up to date");
    Ok(Next::AtOnce)
}

/// Puts back the lines of those orders that failed. The rows of all, which have ended, are locked.
pub(crate) async fn put_back_failed(
    db: &mut PgConnection,
    ended: &[(OrderId, State)],
    now: OffsetDateTime,
) -> Result<(), Unexpected> {
    let order_ids: Vec<_> = ended.iter().map(|(order_id, _)| *order_id).collect();
    let of_carts = sqlx::query_scalar!(
        r#"delete from cart_order where order_id = any($1) returning order_id as "order_id: OrderId""#,
        &order_ids as &[OrderId],
    );
    let of_carts = of_carts.fetch_all(&mut *db).await?;
    let has_failed = |(order_id, state): &&(OrderId, State)| match state {
        State::Rejected | State::PaymentFailed | State::Expired => of_carts.contains(order_id),
        // The customer, or the shop, wanted no more of it.
        State::Cancelled | State::Fulfilled => false,
        State::Pending | State::Reserved | State::Confirmed => false,
    };
    let failed: Vec<_> = ended.iter().filter(has_failed).map(|(order_id, _)| *order_id).collect();
    if failed.is_empty() { Ok(()) } else { put_back(db, &failed, now).await }
}

async fn put_back(db: &mut PgConnection, failed: &[OrderId], now: OffsetDateTime) -> Result<(), Unexpected> {
    // In the order of ids, so that no two transactions wait for each other in a circle. The cart of a user who was erased is gone.
    sqlx::query!(
        r#"select from cart where user_id in (select user_id from "order" where order_id = any($1))
           order by user_id for update"#,
        failed as &[OrderId],
    )
    .execute(&mut *db)
    .await?;
    // Where the customer has added the product again, adding the quantities would be twice what they want.
    sqlx::query!(
        r#"update cart_item set quantity = back.quantity
           from (select user_id, product_id, max(quantity) as quantity from "order" join order_line using (order_id)
                 where order_id = any($1) group by user_id, product_id) as back
           where cart_item.user_id = back.user_id and cart_item.product_id = back.product_id
             and cart_item.quantity < back.quantity"#,
        failed as &[OrderId],
    )
    .execute(&mut *db)
    .await?;
    // As many of the others as the cart has room for.
    sqlx::query!(
        r#"with back as (
             select user_id, product_id, max(quantity) as quantity, min(order_id::text || to_char(line, '000')) as place
             from "order" join order_line using (order_id) join cart using (user_id)
             where order_id = any($1)
               and not exists (select from cart_item as it where it.user_id = "order".user_id and it.product_id = order_line.product_id)
             group by user_id, product_id
           ), numbered as (
             select *, row_number() over (partition by user_id order by place) as number from back
           )
           insert into cart_item (user_id, product_id, quantity, added_at)
           select user_id, product_id, quantity, $2::timestamptz + number * interval '1 microsecond' from numbered
           where number <= $3 - (select count(*) from cart_item as it where it.user_id = numbered.user_id)"#,
        failed as &[OrderId],
        now,
        MAX_ITEMS,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        r#"update cart set version = version + 1, updated_at = $2
           where user_id in (select user_id from "order" where order_id = any($1))"#,
        failed as &[OrderId],
        now,
    )
    .execute(&mut *db)
    .await?;
    Ok(())
}
