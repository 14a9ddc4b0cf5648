//! Lists of orders: the caller's own, and what they share with the lists of operators.

use chassis::rpc::page::Page;
use chassis::{Caller, Owner, Unexpected};
use contracts::souk::order::v1::{self as proto, ListOrdersRequest, ListOrdersResponse};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::OrderId;
use crate::order::{Detail, Order};
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
    let ids = sqlx::query_scalar!(
        r#"select order_id as "order_id: OrderId" from "order" where user_id = $1 and order_id < $2
           order by order_id desc limit $3"#,
        user_id,
        page.after.unwrap_or(Uuid::max()),
        page.limit(),
    );
    let ids = ids.fetch_all(&mut *db).await?;
    let (orders, next_page_token) = read_page(&mut db, &page, ids).await?;
    Ok(ListOrdersResponse { orders, next_page_token })
}

/// Reads the orders of a page, which were found with [`Page::limit`], and returns them in this order with the token of the next
/// page. The page ends early where lines are many.
pub(crate) async fn read_page(
    db: &mut PgConnection,
    page: &Page<Uuid>,
    mut ids: Vec<OrderId>,
) -> Result<(Vec<proto::Order>, String), Unexpected> {
    let mut next_page_token = page.cut(&mut ids, |id| id.0);
    let mut orders = Order::find_all(db, &ids, Owner::Anybody, Detail::Listed).await?;
    orders.sort_by_cached_key(|order| ids.iter().position(|id| *id == order.order_id));
    let mut lines = 0;
    let whole = orders.iter().take_while(|order| {
        lines += order.lines.len();
        lines <= MAX_LINES
    });
    let whole = whole.count();
    if whole < orders.len() {
        next_page_token = page.cut_short(&mut orders, whole, |order| order.order_id.0);
    }
    Ok((orders.iter().map(Order::to_proto).collect(), next_page_token))
}
