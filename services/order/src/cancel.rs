//! Cancel an order. Legal until a part of it is fulfilled: held stock is released and captured money is refunded, each by
//! the service that owns it, when it consumes `OrderCancelled`.

use chassis::rpc::idempotency::{self, Begun};
use chassis::{Caller, Owner};
use contracts::souk::order::v1::{CancelOrderRequest, CancelOrderResponse, CancelReason};

use crate::error::Error;
use crate::fact::Fact;
use crate::ids::OrderId;
use crate::order::Order;
use crate::record::{Cause, Changes};
use crate::service::Service;
use crate::state::State;

pub(crate) async fn cancel(
    service: &Service,
    caller: &Caller,
    mut request: CancelOrderRequest,
) -> Result<CancelOrderResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
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
    if order.state == State::Confirmed && !order.shipments.is_empty() {
        return Err(Error::OrderPartlyFulfilled);
    }
    let cancelled = Fact::Cancelled { reason };
    if order.state.after(&cancelled).is_none() {
        return Err(Error::OrderNotCancellable { state: order.state });
    }
    let mut changes = Changes::new(service);
    changes.record(&mut order, &cancelled, Cause::caller(caller))?;
    changes.save(&mut tx).await?;

    let response = CancelOrderResponse { order: Some(order.to_proto()) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}
