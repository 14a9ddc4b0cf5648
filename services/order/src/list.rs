//! The caller's orders, newest first. Lines come with one query for the whole page, which ends early where they are many.

use std::collections::HashMap;

use chassis::rpc::page::Page;
use chassis::{Caller, Unexpected};
use contracts::souk::order::v1::{ListOrdersRequest, ListOrdersResponse};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::OrderId;
use crate::order::{Line, Order};
use crate::service::Service;

/// Of 200 orders with 100 lines each, the response would be longer than the 4 MiB that clients and the edge accept. One order
/// always fits.
const MAX_LINES: usize = 2_000;

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListOrdersRequest,
) -> Result<ListOrdersResponse, Error> {
    let user_id = caller.user_id()?;
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &format!("orders of {user_id}"))?;
    let mut db = service.db.acquire().await?;
    let mut orders = sqlx::query_as!(
        Order,
        r#"select order_id as "order_id: _", user_id as "user_id: _", state as "state: _", version, currency, total_minor,
             payment_method, payment_id as "payment_id: _", captured, refunded_minor, exit_reason, carrier,
             tracking_number, returns, expires_at, created_at, updated_at, array[]::record[] as "lines!: _",
             array[]::record[] as "shipments!: _"
           from "order" where user_id = $1 and ($2::uuid is null or order_id < $2)
           order by order_id desc limit $3"#,
        user_id,
        page.after,
        page.limit(),
    )
    .fetch_all(&mut *db)
    .await?;
    let next_page_token = page.cut(&mut orders, |order| order.order_id.0);
    let next_page_token = add_lines(&mut db, &page, &mut orders, next_page_token).await?;
    Ok(ListOrdersResponse { orders: orders.iter().map(Order::to_proto).collect(), next_page_token })
}

/// Adds the lines of a page of orders, and returns the token of the next page, which begins earlier if there are many lines.
pub(crate) async fn add_lines(
    db: &mut PgConnection,
    page: &Page<Uuid>,
    orders: &mut Vec<Order>,
    mut next_page_token: String,
) -> Result<String, Unexpected> {
    let ids: Vec<_> = orders.iter().map(|order| order.order_id).collect();
    let lines = sqlx::query!(
        r#"select order_id as "order_id: OrderId",
             row (product_id, sku, title, quantity, price_minor, fulfilled, returned) as "line!: Line"
           from order_line where order_id = any($1) order by array_position($1, order_id), line limit $2"#,
        &ids as &[OrderId],
        MAX_LINES as i64 + 1,
    )
    .fetch_all(db)
    .await?;
    // One too many: its order, and those behind it, are for the next page.
    if let Some(beyond) = lines.get(MAX_LINES) {
        let whole = ids.iter().take_while(|id| **id != beyond.order_id).count();
        next_page_token = page.cut_short(orders, whole, |order| order.order_id.0);
    }
    let mut by_order = HashMap::<OrderId, Vec<Line>>::new();
    for row in lines {
        by_order.entry(row.order_id).or_default().push(row.line);
    }
    for order in orders {
        order.lines = by_order.remove(&order.order_id).unwrap_or_default();
    }
    Ok(next_page_token)
}
