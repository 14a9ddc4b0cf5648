//! Record that a paid order was handed to a carrier.

use chassis::Caller;
use chassis::rpc::idempotency::{self, Begun};
use contracts::souk::order::v1::{FulfillOrderRequest, FulfillOrderResponse};

use crate::error::Error;
use crate::fact::Fact;
use crate::ids::OrderId;
use crate::order::Order;
use crate::record::{Cause, Changes};
use crate::service::Service;
use crate::state::State;

pub(crate) async fn fulfill(
    service: &Service,
    caller: &Caller,
    mut request: FulfillOrderRequest,
) -> Result<FulfillOrderResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
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
    let mut changes = Changes::new(service);
    changes.record(&mut order, &fulfilled, Cause::caller(caller))?;
    changes.save(&mut tx).await?;

    let response = FulfillOrderResponse { order: Some(order.to_proto()) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}
