//! The orders that are paid and not completely fulfilled, oldest first.

use chassis::rpc::page::Page;
use contracts::souk::order::v1::{GetPickListRequest, GetPickListResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::list::add_lines;
use crate::order::Order;
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetPickListRequest) -> Result<GetPickListResponse, Error> {
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, "orders to fulfil")?;
    let mut db = service.db.acquire().await?;
    let orders = sqlx::query_as!(
        Order,
        r#"select order_id as "order_id: _", user_id as "user_id: _", state as "state: _", version, currency, total_minor,
             payment_method, payment_id as "payment_id: _", captured, refunded_minor, exit_reason, carrier,
             tracking_number, returns, expires_at, created_at, updated_at, array[]::record[] as "lines!: _",
             array[]::record[] as "shipments!: _"
           from "order" where state = 'CONFIRMED' and captured and order_id > $1
           order by order_id limit $2"#,
        page.after.unwrap_or_default(),
        page.limit(),
    );
    let mut orders = orders.fetch_all(&mut *db).await?;
    let next_page_token = page.cut(&mut orders, |order| order.order_id.0);
    let next_page_token = add_lines(&mut db, &page, &mut orders, next_page_token).await?;
    Ok(GetPickListResponse { orders: orders.iter().map(Order::to_proto).collect(), next_page_token })
}
