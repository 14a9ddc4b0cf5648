//! Record that a paid order, or a part of it, was handed to a carrier.

use std::collections::HashSet;

use chassis::Caller;
use chassis::rpc::idempotency::{self, Begun};
use chassis::rpc::update::check_etag;
use contracts::souk::order::v1::{FulfillOrderRequest, FulfillOrderResponse, OrderItem};

use crate::error::Error;
use crate::fact::Fact;
use crate::ids::{OrderId, ProductId};
use crate::order::Order;
use crate::parcel::{MAX_PARTS, Parcel, Units};
use crate::record::{Cause, Changes};
use crate::service::Service;
use crate::shipping_address;
use crate::state::State;

pub(crate) async fn fulfill(
    service: &Service,
    caller: &Caller,
    mut request: FulfillOrderRequest,
) -> Result<FulfillOrderResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let wanted = parse_items(&request.items)?;
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
    // One of which a part was sent cannot be cancelled: to fulfil the rest is the only way to end it.
    if order.refunded_minor >= order.total_minor && order.shipments.is_empty() {
        return Err(Error::OrderRefunded);
    }
    let version = shipping_address::version(&mut tx, order_id).await?;
    check_etag(&request.shipping_address_etag, version.unwrap_or_default())?;
    let items = if wanted.is_empty() { order.unfulfilled() } else { wanted };
    order.check_units(&items, |line| line.quantity - order.fulfilled(line))?;
    let is_complete = order.is_complete_with(&items);
    // The last one has all that is left: what stays behind could not be sent any more.
    if order.shipments_count() + 1 >= MAX_PARTS && !is_complete {
        return Err(Error::OrderPartsExhausted);
    }
    let parcel = Parcel { carrier: request.carrier, tracking_number: request.tracking_number, items };
    let fact = if is_complete { Fact::Fulfilled(parcel) } else { Fact::PartlyFulfilled(parcel) };
    let mut changes = Changes::new(service);
    changes.record(&mut order, &fact, Cause::caller(caller))?;
    changes.save(&mut tx).await?;

    let response = FulfillOrderResponse { order: Some(order.to_proto()) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}

fn parse_items(items: &[OrderItem]) -> Result<Vec<Units>, Error> {
    let (mut parsed, mut seen) = (Vec::new(), HashSet::new());
    for (at, item) in items.iter().enumerate() {
        let refuse = |why: &str| chassis::Error::field(format!("items[{at}].product_id"), why);
        let product_id = ProductId::parse(&item.product_id).ok_or_else(|| refuse("must be a UUID"))?;
        if !seen.insert(product_id) {
            return Err(refuse("names a product that another item names").into());
        }
        parsed.push(Units { product_id, quantity: item.quantity });
    }
    Ok(parsed)
}
