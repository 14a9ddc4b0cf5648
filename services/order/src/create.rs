//! Place an order: price the items, and record it as PENDING. Everything after that happens by events.
//!
//! A stored response is looked up before prices are read: a retry must not fail, or cost more, because the catalogue
//! changed since. An order without items is one of the cart, which is read before it is priced, and emptied in the transaction of
//! the order if it has not changed meanwhile.

use std::collections::HashSet;

use chassis::rpc::client;
use chassis::rpc::idempotency::{self, Begun};
use chassis::rpc::update::check_etag;
use chassis::{Caller, Unexpected};
use contracts::money::Invalid;
use contracts::souk::order::v1::{CreateOrderRequest, CreateOrderResponse, Order as OrderProto, OrderItem};
use contracts::souk::product::v1::{ItemQuote, ProductState, QuoteItemsRequest};
use contracts::souk::r#type::v1::Money;

use crate::cart::{self, Cart};
use crate::error::Error;
use crate::ids::{OrderId, ProductId, UserId};
use crate::order::{Line, Order};
use crate::record::{Cause, Changes};
use crate::service::Service;
use crate::state::State;

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    mut request: CreateOrderRequest,
) -> Result<CreateOrderResponse, Error> {
    let user_id = UserId::new(caller.user_id()?);
    parse_items(&request.items)?;
    if !request.items.is_empty() && !request.cart_etag.is_empty() {
        return Err(chassis::Error::field("cart_etag", "is for an order of the cart, which has no items here").into());
    }
    let expected = parse_expected_total(&request)?;
    if request.validate_only {
        let Priced { lines, total, .. } = find_prices(service, caller, user_id, &request, expected.as_ref()).await?;
        let items = lines.iter().map(|line| line.to_proto(&total.currency)).collect();
        let order = OrderProto { user_id: user_id.to_string(), items, total: Some(total), ..Default::default() };
        return Ok(CreateOrderResponse { order: Some(order) });
    }
    let key = caller.take_key(&mut request.request_id)?;
    if let Some(response) = idempotency::replay(&service.db, caller, &key, &request).await? {
        return Ok(response);
    }
    let priced = match find_prices(service, caller, user_id, &request, expected.as_ref()).await {
        Ok(priced) => priced,
        // An earlier attempt of the same request may have placed the order, and emptied the cart, since its response was looked up.
        Err(error) => return idempotency::replay(&service.db, caller, &key, &request).await?.ok_or(error),
    };
    let Priced { lines, total, cart_version } = priced;

    let mut tx = match idempotency::begin(&service.db, caller, &key, &request).await? {
        Begun::Fresh(tx) => tx,
        Begun::Replay(response) => return Ok(response),
    };
    let now = service.clock.now();
    let order = Order {
        order_id: OrderId::new(service.clock.new_id()),
        user_id,
        state: State::Pending,
        version: 1,
        currency: total.currency,
        total_minor: total.minor,
        payment_method: request.payment_method,
        payment_id: None,
        captured: false,
        refunded_minor: 0,
        exit_reason: String::new(),
        carrier: String::new(),
        tracking_number: String::new(),
        returns: 0,
        expires_at: now + service.payment_deadline,
        created_at: now,
        updated_at: now,
        lines,
        shipments: vec![],
    };
    order.insert(&mut tx, request.shipping_address.as_ref()).await?;
    if let Some(version) = cart_version {
        cart::empty_into(&mut tx, order.order_id, user_id, version, now).await?;
    }
    let mut changes = Changes::new(service);
    changes.place(&order, Cause::caller(caller));
    changes.save(&mut tx).await?;

    let response = CreateOrderResponse { order: Some(order.to_proto()) };
    tx.commit(&response).await?;
    service.published.wake();
    Ok(response)
}

fn parse_items(items: &[OrderItem]) -> Result<Vec<ProductId>, Error> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    for (at, item) in items.iter().enumerate() {
        let field = || format!("items[{at}].product_id");
        let id = ProductId::parse(&item.product_id).ok_or_else(|| chassis::Error::field(field(), "must be a UUID"))?;
        if !seen.insert(id) {
            return Err(chassis::Error::field(field(), "names a product that another item names").into());
        }
        ids.push(id);
    }
    Ok(ids)
}

fn parse_expected_total(request: &CreateOrderRequest) -> Result<Option<Money>, Error> {
    let expected = request.expected_total.clone().map(Money::checked).transpose();
    expected.map_err(|invalid| {
        let part = if invalid == Invalid::Currency { "currency" } else { "minor" };
        chassis::Error::field(format!("expected_total.{part}"), invalid.to_string()).into()
    })
}

/// What is ordered, at today's prices.
struct Priced {
    lines: Vec<Line>,
    total: Money,
    /// Of the cart, if it is ordered.
    cart_version: Option<i64>,
}

/// The total must be what the customer expects to pay, if the request says so.
async fn find_prices(
    service: &Service,
    caller: &Caller,
    user_id: UserId,
    request: &CreateOrderRequest,
    expected: Option<&Money>,
) -> Result<Priced, Error> {
    let (items, cart_version) = find_items(service, user_id, request).await?;
    let product_ids = parse_items(&items)?;
    let quotes = ask_prices(service, caller, &product_ids).await?;
    let (lines, total) = price(&items, &product_ids, quotes).map_err(|error| match error {
        Error::ProductUnavailable { fields } if cart_version.is_some() => {
            Error::ProductUnavailable { fields: fields.iter().map(|field| format!("cart.{field}")).collect() }
        }
        error => error,
    })?;
    if let Some(expected) = expected.filter(|expected| **expected != total) {
        return Err(Error::PriceChanged { expected: expected.clone(), actual: total });
    }
    Ok(Priced { lines, total, cart_version })
}

/// Those of the request, or those of the cart with its version.
async fn find_items(
    service: &Service,
    user_id: UserId,
    request: &CreateOrderRequest,
) -> Result<(Vec<OrderItem>, Option<i64>), Error> {
    if !request.items.is_empty() {
        return Ok((request.items.clone(), None));
    }
    let mut db = service.db.acquire().await?;
    let cart = Cart::find(&mut db, user_id).await?;
    check_etag(&request.cart_etag, cart.version)?;
    if cart.items.is_empty() {
        return Err(Error::CartEmpty);
    }
    Ok((cart.to_order_items(), Some(cart.version)))
}

/// Asks for today's prices.
pub(crate) async fn ask_prices(
    service: &Service,
    caller: &Caller,
    product_ids: &[ProductId],
) -> Result<Vec<ItemQuote>, Error> {
    let ask = QuoteItemsRequest { product_ids: product_ids.iter().map(ProductId::to_string).collect() };
    let quotes = client::read(caller.deadline, ask, |ask| {
        let mut products = service.products.clone();
        async move { products.quote_items(ask).await }
    });
    Ok(quotes.await.map_err(|status| client::failed("product", status))?.quotes)
}

/// The lines at the prices that were quoted, and their sum. Never a price of the caller's.
pub(crate) fn price(
    items: &[OrderItem],
    product_ids: &[ProductId],
    quotes: Vec<ItemQuote>,
) -> Result<(Vec<Line>, Money), Error> {
    // A quote too few, or for another product, would make it another order.
    let quoted = quotes.iter().map(|quote| ProductId::parse(&quote.product_id));
    if !quoted.eq(product_ids.iter().copied().map(Some)) {
        return Err(Unexpected::Broken(
            "the product service responded with other quotes than were requested".to_owned(),
        )
        .into());
    }
    let (mut lines, mut unavailable, mut total) = (Vec::new(), Vec::new(), None::<Money>);
    for (at, ((item, product_id), quote)) in items.iter().zip(product_ids).zip(quotes).enumerate() {
        let state = quote.state();
        let Some(price) = quote.unit_price.filter(|_| state == ProductState::Active) else {
            unavailable.push(format!("items[{at}].product_id"));
            continue;
        };
        let sum = price.times(item.quantity).map_err(refuse_total)?;
        total = Some(total.map_or(Ok(sum.clone()), |total| total.plus(&sum)).map_err(refuse_total)?);
        lines.push(Line {
            product_id: *product_id,
            sku: quote.sku,
            title: quote.title,
            quantity: item.quantity,
            price_minor: price.minor,
            fulfilled: 0,
            returned: 0,
        });
    }
    if !unavailable.is_empty() {
        return Err(Error::ProductUnavailable { fields: unavailable });
    }
    let total = total.ok_or(Error::TotalOutOfRange)?.checked().map_err(refuse_total)?;
    Ok((lines, total))
}

fn refuse_total(invalid: Invalid) -> Error {
    match invalid {
        Invalid::Mixed | Invalid::Currency => Error::CurrencyMixed,
        Invalid::Amount => Error::TotalOutOfRange,
    }
}
