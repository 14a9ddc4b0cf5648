//! Receive units, and correct their number after a count.

use chassis::Caller;
use chassis::event::outbox::Batch;
use chassis::rpc::error::on_constraint;
use chassis::rpc::idempotency::{self, Begun};
use contracts::souk::inventory::v1::*;

use crate::error::Error;
use crate::low_stock::{self, Threshold};
use crate::movement::{self, Movement};
use crate::service::Service;
use crate::stock::Level;

pub(crate) async fn receive(
    service: &Service,
    caller: &Caller,
    mut request: ReceiveStockRequest,
) -> Result<ReceiveStockResponse, Error> {
    let (key, now) = (caller.take_key(&mut request.request_id)?, service.clock.now());

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let level = sqlx::query_as!(
        Level,
        "insert into stock (sku, available, received) values ($1, $2, $2)
         on conflict on constraint stock_sku do update
         set available = stock.available + excluded.available, received = stock.received + excluded.received
         returning sku, available, reserved, sold, received, written_off",
        request.sku,
        i64::from(request.quantity),
    )
    .fetch_one(&mut *tx)
    .await?;

    movement::record(&mut tx, &[Movement::by(caller, &request.sku, "RECEIVED", request.quantity)], now).await?;
    let response = ReceiveStockResponse { stock: Some(level.into_proto()) };
    tx.commit(&response).await?;
    tracing::info!(sku = request.sku, quantity = request.quantity, actor = caller.actor(), "stock was received");
    Ok(response)
}

pub(crate) async fn adjust(
    service: &Service,
    caller: &Caller,
    mut request: AdjustStockRequest,
) -> Result<AdjustStockResponse, Error> {
    let (key, now) = (caller.take_key(&mut request.request_id)?, service.clock.now());
    let change = i64::from(request.change);

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let sku = request.sku.clone();
    let before =
        sqlx::query!("select available, low_at, low_id, low_version from stock where sku = $1 for no key update", sku,);
    let before = before.fetch_optional(&mut *tx).await?.ok_or(Error::SkuNotFound { sku })?;
    let available = before.available;
    let short = Error::StockShort { sku: request.sku.clone(), available };
    let level = sqlx::query_as!(
        Level,
        "update stock set available = available + $2, received = received + greatest($2::bigint, 0),
           written_off = written_off + greatest(-$2::bigint, 0)
         where sku = $1 returning sku, available, reserved, sold, received, written_off",
        request.sku,
        change,
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(on_constraint("stock_not_oversold", short))?;

    let name = request.reason().as_str_name().trim_start_matches("ADJUST_REASON_");
    movement::record(&mut tx, &[Movement::by(caller, &request.sku, name, request.change)], now).await?;
    let threshold = Threshold::of(before.low_at, before.low_id, before.low_version);
    let fallen = threshold.and_then(|threshold| threshold.fallen(&level.sku, available, level.available));
    let mut events = Batch::default();
    low_stock::record(&mut tx, service, fallen.as_slice(), &caller.actor(), &mut events).await?;
    if fallen.is_some() {
        events.append(&mut tx).await?;
    }
    let response = AdjustStockResponse { stock: Some(level.into_proto()) };
    tx.commit(&response).await?;
    if fallen.is_some() {
        service.published.wake();
    }
    tracing::info!(sku = request.sku, change, reason = ?request.reason(), actor = caller.actor(), "stock was adjusted");
    Ok(response)
}
