//! How orders stand, for those who hold something for them.

use contracts::souk::order::v1::{BatchGetOrderStatesRequest, BatchGetOrderStatesResponse, OrderStatus};

use crate::Service;
use crate::error::Error;
use crate::get::parse_id;
use crate::order::State;

pub(crate) async fn batch_get(
    service: &Service,
    request: BatchGetOrderStatesRequest,
) -> Result<BatchGetOrderStatesResponse, Error> {
    let ids = request.order_ids.iter().map(|id| parse_id(id)).collect::<Result<Vec<_>, _>>()?;
    let rows = sqlx::query!(r#"select order_id, state, version from "order" where order_id = any($1)"#, &ids);
    let rows = rows.fetch_all(&service.db).await?;
    let orders = rows.into_iter().map(|row| {
        let state = State::parse(&row.state).map_err(chassis::Error::from)?.to_proto().into();
        Ok(OrderStatus { order_id: row.order_id.to_string(), state, version: row.version })
    });
    Ok(BatchGetOrderStatesResponse { orders: orders.collect::<Result<_, Error>>()? })
}
