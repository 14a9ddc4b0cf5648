//! The states of orders, for services that hold stock or money for them.

use contracts::souk::order::v1::{BatchGetOrderStatesRequest, BatchGetOrderStatesResponse, OrderStatus};

use crate::error::Error;
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::State;

pub(crate) async fn batch_get(
    service: &Service,
    request: BatchGetOrderStatesRequest,
) -> Result<BatchGetOrderStatesResponse, Error> {
    let ids = request.order_ids.iter().map(|id| OrderId::parse(id).ok_or(Error::OrderNotFound));
    let rows = sqlx::query!(
        r#"select order_id, state as "state: State", version from "order" where order_id = any($1)"#,
        &ids.collect::<Result<Vec<_>, _>>()? as &[OrderId],
    );
    let orders = rows.fetch_all(&service.db).await?.into_iter().map(|row| OrderStatus {
        order_id: row.order_id.to_string(),
        state: row.state.to_proto().into(),
        version: row.version,
    });
    Ok(BatchGetOrderStatesResponse { orders: orders.collect() })
}
