//! What operators did to stock, and what came back from customers: why, how many units, and who did it.

use chassis::boot::db::column;
use chassis::rpc::page::Page;
use chassis::{Caller, Unexpected, timestamp};
use contracts::souk::inventory::v1::{
    ListStockMovementsRequest, ListStockMovementsResponse, StockMovement, StockMovementReason,
};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Error;
use crate::ids::OrderId;
use crate::service::Service;

pub(crate) struct Movement<'a> {
    pub(crate) sku: &'a str,
    /// Such as `DAMAGE`: the name in the contract.
    pub(crate) reason: &'static str,
    pub(crate) units: i64,
    pub(crate) actor: String,
    /// The order from which they came back.
    pub(crate) order_id: Option<OrderId>,
}

impl<'a> Movement<'a> {
    /// One that the caller makes.
    pub(crate) fn by(caller: &Caller, sku: &'a str, reason: &'static str, units: i32) -> Self {
        Self { sku, reason, units: units.into(), actor: caller.actor(), order_id: None }
    }
}

pub(crate) async fn record(
    tx: &mut PgConnection,
    movements: &[Movement<'_>],
    now: OffsetDateTime,
) -> Result<(), Unexpected> {
    sqlx::query!(
        "insert into stock_movement (sku, reason, units, actor, order_id, at)
         select sku, reason, units, actor, order_id, $6
         from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::uuid[]) with ordinality
           as it (sku, reason, units, actor, order_id, place)
         order by place",
        &column(movements, |it| it.sku) as &[&str],
        &column(movements, |it| it.reason) as &[&str],
        &column(movements, |it| it.units),
        &column(movements, |it| it.actor.as_str()) as &[&str],
        &column(movements, |it| it.order_id) as &[Option<OrderId>],
        now,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn list(
    service: &Service,
    request: ListStockMovementsRequest,
) -> Result<ListStockMovementsResponse, Error> {
    let sku = request.sku;
    let page = Page::<i64>::parse(request.page_size, &request.page_token, &format!("movements of {sku}"))?;
    let known = sqlx::query_scalar!("select sku from stock where sku = $1", sku);
    known.fetch_optional(&service.db).await?.ok_or_else(|| Error::SkuNotFound { sku: sku.clone() })?;
    let mut rows = sqlx::query!(
        r#"select movement_id, reason, units, actor, order_id as "order_id: OrderId", at from stock_movement
           where sku = $1 and movement_id < $2 order by movement_id desc limit $3"#,
        sku,
        page.after.unwrap_or(i64::MAX),
        page.limit(),
    )
    .fetch_all(&service.db)
    .await?;
    let next_page_token = page.cut(&mut rows, |row| row.movement_id);
    let movements = rows.into_iter().map(|row| {
        let reason = StockMovementReason::from_str_name(&format!("STOCK_MOVEMENT_REASON_{}", row.reason));
        StockMovement {
            movement_id: row.movement_id,
            sku: sku.clone(),
            reason: reason.unwrap_or_default().into(),
            units: row.units,
            actor: row.actor,
            order_id: row.order_id.map(|id| id.to_string()).unwrap_or_default(),
            create_time: Some(timestamp(row.at)),
        }
    });
    Ok(ListStockMovementsResponse { movements: movements.collect(), next_page_token })
}
