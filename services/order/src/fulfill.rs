//! Record that a paid order was handed to a carrier.

use chassis::Caller;
use chassis::rpc::idempotency::{self, Begun};
use contracts::souk::order::v1::{FulfillOrderRequest, FulfillOrderResponse};

use crate::Service;
use crate::error::Error;
use crate::event::{self, Cause, Fact};
use crate::get::parse_id;
use crate::order::{Order, State};

pub(crate) async fn fulfill(
    service: &Service,
    caller: &Caller,
    mut request: FulfillOrderRequest,
) -> Result<FulfillOrderResponse, Error> {
    let order_id = parse_id(&request.order_id)?;
    let key = caller.take_key(&mut request.request_id)?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let mut order = Order::lock(&mut tx, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    if order.state != State::Confirmed {
        return Err(Error::OrderNotFulfillable { state: order.state });
    }
    if !order.captured {
        return Err(Error::PaymentNotCaptured);
    }
    let fulfilled = Fact::Fulfilled { carrier: request.carrier, tracking_number: request.tracking_number };
    event::record(service, &mut tx, &mut order, fulfilled, &Cause::caller(caller)).await?;
    let lines = Order::lines(&mut tx, order_id).await?;

    let response = FulfillOrderResponse { order: Some(order.to_proto(&lines)) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}
