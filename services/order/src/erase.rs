//! Users who were erased: their carts and shipping addresses go. Of an order that has ended, at once; of one that goes on, when it ends,
//! as until then the address is needed to deliver it. What happened to their orders stays.

use std::sync::Arc;
use std::time::Duration;

use chassis::{Next, Unexpected};
use sqlx::PgConnection;

use crate::cart;
use crate::ids::UserId;
use crate::service::Service;

/// When addresses of a user are looked for again.
const AGAIN: Duration = Duration::from_secs(60);
/// For how long an access token may still place orders for a user who was erased, and much longer.
const LATECOMERS: Duration = Duration::from_secs(3_600);
const USERS: i64 = 20;
const ADDRESSES: i64 = 1_000;

/// Records that users were erased; the job [`erase_addresses`] does the rest.
pub(crate) async fn record(service: &Service, db: &mut PgConnection, users: &[UserId]) -> Result<(), Unexpected> {
    if users.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into erased_user (user_id, erased_at, due_at) select user_id, $2, $2 from unnest($1::uuid[]) as user_id
         on conflict do nothing",
        users as &[UserId],
        service.clock.now(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes one batch of addresses, of users whom no other replica has locked.
pub(crate) async fn erase_addresses(service: Arc<Service>) -> Result<Next, Unexpected> {
    let now = service.clock.now();
    let mut tx = service.db.begin().await?;
    let users = sqlx::query_scalar!(
        r#"select user_id as "user_id: UserId" from erased_user where due_at <= $1 order by due_at limit $2
           for update skip locked"#,
        now,
        USERS,
    );
    let users = users.fetch_all(&mut *tx).await?;
    if users.is_empty() {
        return Ok(Next::AfterPause);
    }
    // Again and again, as an access token may still be valid for a while.
    cart::erase(&mut tx, &users).await?;
    let erased = sqlx::query!(
        r#"delete from order_shipping_address where order_id in
             (select order_id from "order" join order_shipping_address using (order_id)
              where user_id = any($1) and state not in ('PENDING', 'RESERVED', 'CONFIRMED') limit $2)"#,
        &users as &[UserId],
        ADDRESSES,
    );
    let erased = erased.execute(&mut *tx).await?.rows_affected();
    // If the batch was full, they stay due.
    if erased < ADDRESSES.unsigned_abs() {
        let rest = sqlx::query!(
            r#"with waiting as (
                 select user_id, erased_at > $2 or exists
                   (select from "order" join order_shipping_address using (order_id) where "order".user_id = it.user_id) as waits
                 from erased_user as it where user_id = any($1)
               ), done as (
                 delete from erased_user using waiting where erased_user.user_id = waiting.user_id and not waits
               )
               update erased_user set due_at = $3 from waiting where erased_user.user_id = waiting.user_id and waits"#,
            &users as &[UserId],
            now - LATECOMERS,
            now + AGAIN,
        );
        rest.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    if erased > 0 {
        tracing::info!(addresses = erased, "shipping addresses of erased users were deleted");
    }
    Ok(Next::AtOnce)
}
