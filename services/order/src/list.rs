//! The caller's orders, newest first. Lines come with one query for the whole page, which ends early where they are many.

use std::collections::HashMap;

use chassis::Caller;
use chassis::rpc::page::Page;
use contracts::souk::order::v1::{ListOrdersRequest, ListOrdersResponse};
use uuid::Uuid;

use crate::Service;
use crate::error::Error;
use crate::order::{Line, Row};

/// Of 200 orders with 100 lines each, the answer would be longer than the 4 MiB that clients and the edge take. One order
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
    let mut rows = sqlx::query_as!(
        Row,
        r#"select order_id, user_id, state, version, currency, total_minor, payment_method, payment_id, captured,
             refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at
           from "order" where user_id = $1 and ($2::uuid is null or order_id < $2)
           order by order_id desc limit $3"#,
        user_id,
        page.after,
        page.limit(),
    )
    .fetch_all(&mut *db)
    .await?;
    let mut next_page_token = page.cut(&mut rows, |row| row.order_id);
    let ids: Vec<_> = rows.iter().map(|row| row.order_id).collect();
    let lines = sqlx::query!(
        "select order_id, product_id, sku, title, quantity, price_minor from order_line
         where order_id = any($1) order by order_id desc, line limit $2",
        &ids,
        MAX_LINES as i64 + 1,
    )
    .fetch_all(&mut *db)
    .await?;
    // One too many: its order, and those behind it, are for the next page.
    if let Some(beyond) = lines.get(MAX_LINES) {
        let whole = ids.iter().take_while(|id| **id > beyond.order_id).count();
        next_page_token = page.cut_short(&mut rows, whole, |row| row.order_id);
    }
    let mut by_order = HashMap::<Uuid, Vec<Line>>::new();
    for row in lines {
        let (product_id, quantity, price_minor) = (row.product_id, row.quantity, row.price_minor);
        let line = Line { product_id, sku: row.sku, title: row.title, quantity, price_minor };
        by_order.entry(row.order_id).or_default().push(line);
    }
    let orders = rows.into_iter().map(|row| {
        let lines = by_order.remove(&row.order_id).unwrap_or_default();
        Ok(row.into_order()?.to_proto(&lines))
    });
    Ok(ListOrdersResponse { orders: orders.collect::<Result<_, Error>>()?, next_page_token })
}
