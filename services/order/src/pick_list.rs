//! The orders that are paid, not completely refunded and not completely fulfilled, oldest first.

use chassis::rpc::page::Page;
use contracts::souk::order::v1::{GetPickListRequest, GetPickListResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::ids::OrderId;
use crate::list::read_page;
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetPickListRequest) -> Result<GetPickListResponse, Error> {
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, "orders to fulfil")?;
    let mut db = service.db.acquire().await?;
    let ids = sqlx::query_scalar!(
        r#"select order_id as "order_id: OrderId" from "order" where state = 'CONFIRMED' and captured and refunded_minor < total_minor and order_id > $1
           order by order_id limit $2"#,
        page.after.unwrap_or_default(),
        page.limit(),
    );
    let ids = ids.fetch_all(&mut *db).await?;
    let (orders, next_page_token) = read_page(&mut db, &page, ids).await?;
    Ok(GetPickListResponse { orders, next_page_token })
}
