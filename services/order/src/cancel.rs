//! Cancel an order. Legal until it is fulfilled: what was held is released and what was paid goes back, each by the
//! service that owns it, when it reads `OrderCancelled`.

use chassis::rpc::idempotency::{self, Begun};
use chassis::{Caller, Owner};
use contracts::souk::order::v1::{CancelOrderRequest, CancelOrderResponse, CancelReason};

use crate::Service;
use crate::error::Error;
use crate::event::{self, Cause, Fact};
use crate::get::parse_id;
use crate::order::Order;

pub(crate) async fn cancel(
    service: &Service,
    caller: &Caller,
    mut request: CancelOrderRequest,
) -> Result<CancelOrderResponse, Error> {
    let order_id = parse_id(&request.order_id)?;
    let (owner, reason) = (caller.owner()?, request.reason());
    if owner != Owner::Anybody && reason != CancelReason::CustomerRequest {
        return Err(chassis::Error::field("reason", "is for operators").into());
    }
    let key = caller.take_key(&mut request.request_id)?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let mut order = Order::lock(&mut tx, order_id, owner).await?.ok_or(Error::OrderNotFound)?;
    let cancelled = Fact::Cancelled { reason };
    if order.state.after(&cancelled).is_none() {
        return Err(Error::OrderNotCancellable { state: order.state });
    }
    event::record(service, &mut tx, &mut order, cancelled, &Cause::caller(caller)).await?;
    let lines = Order::lines(&mut tx, order_id).await?;

    let response = CancelOrderResponse { order: Some(order.to_proto(&lines)) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}
