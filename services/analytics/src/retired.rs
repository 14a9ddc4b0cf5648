//! Deletes the rows of projections that are not shown any more, some at a time.

use std::sync::Arc;
use std::time::Duration;

use chassis::{Next, Unexpected};

use crate::service::Service;

pub(crate) const EVERY: Duration = Duration::from_secs(60);

/// Each statement deletes up to 2,000 rows of one table, all in one transaction, in which no other replica deletes of the same
/// projection. When nothing is left, the projection itself is deleted. Rows are looked for in the order of an index: of a projection
/// that has none left in a table, Postgres would expect some at once, and read the whole table.
pub(crate) async fn delete(service: Arc<Service>) -> Result<Next, Unexpected> {
    let (mut tx, mut deleted) = (service.db.begin().await?, 0);
    let retired = sqlx::query_scalar!(
        "select projection_id from projection where state = 'RETIRED' limit 1 for update skip locked",
    );
    let Some(id) = retired.fetch_optional(&mut *tx).await? else { return Ok(Next::AfterPause) };
    let rows = sqlx::query!(
        "delete from counted_order where ctid = any(array(
           select ctid from counted_order where projection_id = $1 order by order_id limit 2000))",
        id,
    );
    deleted += rows.execute(&mut *tx).await?.rows_affected();
    let rows = sqlx::query!(
        "delete from product_sales where ctid = any(array(
           select ctid from product_sales where projection_id = $1 order by quarter limit 2000))",
        id,
    );
    deleted += rows.execute(&mut *tx).await?.rows_affected();
    let rows = sqlx::query!(
        "delete from confirmation_time where ctid = any(array(
           select ctid from confirmation_time where projection_id = $1 order by quarter limit 2000))",
        id,
    );
    deleted += rows.execute(&mut *tx).await?.rows_affected();
    let rows = sqlx::query!(
        "delete from funnel where ctid = any(array(
           select ctid from funnel where projection_id = $1 order by quarter limit 2000))",
        id,
    );
    deleted += rows.execute(&mut *tx).await?.rows_affected();
    let rows = sqlx::query!(
        "delete from sales where ctid = any(array(
           select ctid from sales where projection_id = $1 order by quarter limit 2000))",
        id,
    );
    deleted += rows.execute(&mut *tx).await?.rows_affected();
    if deleted == 0 {
        // The previous release deletes without the lock: then rows that it is about to delete seem to be gone.
        sqlx::query!(
            "delete from projection where projection_id = $1
               and (select true from counted_order where projection_id = $1 order by order_id limit 1) is null
               and (select true from product_sales where projection_id = $1 order by quarter limit 1) is null
               and (select true from confirmation_time where projection_id = $1 order by quarter limit 1) is null
               and (select true from funnel where projection_id = $1 order by quarter limit 1) is null
               and (select true from sales where projection_id = $1 order by quarter limit 1) is null",
            id,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(Next::AtOnce)
}
