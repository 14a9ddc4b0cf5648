//! Take back units that were fulfilled. Inventory restocks them or writes them off, and payment refunds them, each when it
//! consumes `OrderItemsReturned`.
//!
//! The price of the units is what the customer paid for them. Payment refunds it as far as other refunds have left of the
//! captured amount: only it knows of refunds that are under way.

use std::collections::HashSet;

use chassis::Caller;
use chassis::rpc::idempotency::{self, Begun};
use contracts::souk::order::v1::{ReturnItem, ReturnItemsRequest, ReturnItemsResponse};
use contracts::souk::r#type::v1::Money;

use crate::error::Error;
use crate::fact::Fact;
use crate::ids::{OrderId, ProductId};
use crate::order::Order;
use crate::parcel::{MAX_PARTS, Returned, Units};
use crate::record::{Cause, Changes};
use crate::service::Service;

pub(crate) async fn return_items(
    service: &Service,
    caller: &Caller,
    mut request: ReturnItemsRequest,
) -> Result<ReturnItemsResponse, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let items = parse_items(&request.items)?;
    let key = caller.take_key(&mut request.request_id)?;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let mut order = Order::lock(&mut tx, order_id, caller.owner()?).await?.ok_or(Error::OrderNotFound)?;
    let returned = Fact::ItemsReturned(items.clone());
    if order.state.after(&returned).is_none() {
        return Err(Error::OrderNotReturnable { state: order.state });
    }
    let units: Vec<_> = items.iter().map(|item| item.units).collect();
    order.check_units(&units, |line| order.fulfilled(line) - line.returned)?;
    if order.returns >= MAX_PARTS {
        return Err(Error::OrderPartsExhausted);
    }
    let mut changes = Changes::new(service);
    changes.record(&mut order, &returned, Cause::caller(caller))?;
    changes.save(&mut tx).await?;

    let refund = Money::new(order.currency.clone(), order.price_of(&items));
    let response = ReturnItemsResponse { order: Some(order.to_proto()), refund: Some(refund) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}

fn parse_items(items: &[ReturnItem]) -> Result<Vec<Returned>, Error> {
    let (mut parsed, mut seen) = (Vec::new(), HashSet::new());
    for (at, item) in items.iter().enumerate() {
        let refuse = |why: &str| chassis::Error::field(format!("items[{at}].product_id"), why);
        let product_id = ProductId::parse(&item.product_id).ok_or_else(|| refuse("must be a UUID"))?;
        let disposition = item.disposition();
        if !seen.insert((product_id, disposition)) {
            return Err(refuse("names a product that another item with this disposition names").into());
        }
        parsed.push(Returned { units: Units { product_id, quantity: item.quantity }, disposition });
    }
    Ok(parsed)
}
