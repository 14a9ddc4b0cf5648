//! Carts: what a customer means to buy, without prices. Each change locks the cart's row, so changes of two devices happen one after
//! the other, each of its own line.

mod clear;
mod get;
mod put_back;
mod remove;
mod rpc;
mod set;

use chassis::Unexpected;
use contracts::souk::order::v1::OrderItem;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Error;
use crate::ids::{OrderId, ProductId, UserId};

pub(crate) use put_back::{put_back_failed, put_back_missed};

/// Products in a cart.
pub(crate) const MAX_ITEMS: i64 = 100;

#[derive(Debug, Default)]
pub(crate) struct Cart {
    pub(crate) version: i64,
    /// In the order in which they were added.
    pub(crate) items: Vec<Item>,
}

/// The query that reads a cart selects its items as an array of such records.
#[derive(Debug, Clone, PartialEq, sqlx::Type)]
#[sqlx(type_name = "record")]
pub(crate) struct Item {
    pub(crate) product_id: ProductId,
    pub(crate) quantity: i32,
}

impl Cart {
    pub(crate) async fn find(db: &mut PgConnection, user_id: UserId) -> Result<Self, Unexpected> {
        let cart = sqlx::query_as!(
            Self,
            r#"select version, array(select row (product_id, quantity) from cart_item where cart_item.user_id = cart.user_id
                                     order by added_at, product_id) as "items!: _"
               from cart where user_id = $1"#,
            user_id as UserId,
        );
        Ok(cart.fetch_optional(db).await?.unwrap_or_default())
    }

    pub(crate) fn to_order_items(&self) -> Vec<OrderItem> {
        let item = |item: &Item| OrderItem { product_id: item.product_id.to_string(), quantity: item.quantity };
        self.items.iter().map(item).collect()
    }
}

/// Locks a cart, which begins to exist with this, and returns its version.
async fn lock(db: &mut PgConnection, user_id: UserId, now: OffsetDateTime) -> Result<i64, Unexpected> {
    let version = sqlx::query_scalar!(
        "insert into cart (user_id, version, updated_at) values ($1, 0, $2)
         on conflict (user_id) do update set updated_at = cart.updated_at returning version",
        user_id as UserId,
        now,
    );
    Ok(version.fetch_one(db).await?)
}

/// Removes one product from a locked cart, or all, and returns the version after it.
async fn remove_items(
    db: &mut PgConnection,
    user_id: UserId,
    product_id: Option<ProductId>,
    now: OffsetDateTime,
) -> Result<Option<i64>, Unexpected> {
    let version = sqlx::query_scalar!(
        "with removed as (
           delete from cart_item where user_id = $1 and ($2::uuid is null or product_id = $2) returning product_id
         )
         update cart set version = version + 1, updated_at = $3 where user_id = $1 and exists (select from removed)
         returning version",
        user_id as UserId,
        product_id as Option<ProductId>,
        now,
    );
    Ok(version.fetch_optional(db).await?)
}

/// Empties the cart into an order, in its transaction, if the cart still has the version that was priced.
pub(crate) async fn empty_into(
    db: &mut PgConnection,
    order_id: OrderId,
    user_id: UserId,
    version: i64,
    now: OffsetDateTime,
) -> Result<(), Error> {
    // The update locks the cart. If another change has just been committed, it finds another version, and nothing happens.
    let placed = sqlx::query!(
        "with emptied as (
           update cart set version = version + 1, updated_at = $4 where user_id = $2 and version = $3 returning user_id
         ), removed as (
           delete from cart_item using emptied where cart_item.user_id = emptied.user_id
         )
         insert into cart_order (order_id) select $1 from emptied",
        order_id as OrderId,
        user_id as UserId,
        version,
        now,
    );
    match placed.execute(db).await?.rows_affected() {
        0 => Err(Error::CartChanged),
        _ => Ok(()),
    }
}

/// Of users who were erased.
pub(crate) async fn erase(db: &mut PgConnection, users: &[UserId]) -> Result<(), Unexpected> {
    // Their items go with them. In the order of ids, as everywhere.
    sqlx::query!(
        "with gone as (select user_id from cart where user_id = any($1) order by user_id for update)
         delete from cart using gone where cart.user_id = gone.user_id",
        users as &[UserId],
    )
    .execute(db)
    .await?;
    Ok(())
}
