//! Read stock, which is public, and reservations, which are for operators.

use std::collections::HashMap;

use chassis::timestamp;
use contracts::souk::inventory::v1::*;

use crate::error::Error;
use crate::ids::OrderId;
use crate::reservation::State;
use crate::service::Service;

pub(crate) async fn get(service: &Service, request: GetStockRequest) -> Result<GetStockResponse, Error> {
    let available = sqlx::query_scalar!("select available from stock where sku = $1", request.sku);
    let available = available.fetch_optional(&service.db).await?;
    let available = available.ok_or_else(|| Error::SkuNotFound { sku: request.sku.clone() })?;
    Ok(GetStockResponse { stock: Some(Stock { sku: request.sku, available }) })
}

pub(crate) async fn batch_get(
    service: &Service,
    request: BatchGetStockRequest,
) -> Result<BatchGetStockResponse, Error> {
    let rows = sqlx::query!("select sku, available from stock where sku = any($1)", &request.skus);
    let rows = rows.fetch_all(&service.db).await?;
    let found: HashMap<_, _> = rows.into_iter().map(|row| (row.sku, row.available)).collect();
    let mut response = BatchGetStockResponse::default();
    for sku in request.skus {
        match found.get(&sku) {
            Some(available) => response.stocks.push(Stock { sku, available: *available }),
            None => response.missing_skus.push(sku),
        }
    }
    Ok(response)
}

pub(crate) async fn get_reservation(
    service: &Service,
    request: GetReservationRequest,
) -> Result<GetReservationResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::ReservationNotFound)?;
    let row = sqlx::query!(
        r#"select state as "state: State", created_at, updated_at from reservation where order_id = $1"#,
        order_id as OrderId,
    );
    let row = row.fetch_optional(&service.db).await?.ok_or(Error::ReservationNotFound)?;
    let lines = sqlx::query!(
        "select sku, quantity, returned from reservation_line where order_id = $1 order by sku",
        order_id as OrderId,
    );
    let lines = lines.fetch_all(&service.db).await?.into_iter();
    let lines =
        lines.map(|line| ReservationLine { sku: line.sku, quantity: line.quantity, returned_quantity: line.returned });
    let reservation = Reservation {
        order_id: request.order_id,
        state: row.state.to_proto().into(),
        lines: lines.collect(),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
    };
    Ok(GetReservationResponse { reservation: Some(reservation) })
}
