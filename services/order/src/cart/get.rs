//! Read the cart at today's prices.

use std::collections::HashMap;

use chassis::Caller;
use chassis::rpc::update::etag;
use contracts::souk::order::v1::{Cart as CartProto, CartItem, GetCartResponse};
use contracts::souk::product::v1::{ItemQuote, ProductState};
use contracts::souk::r#type::v1::Money;

use super::{Cart, Item};
use crate::create::ask_prices;
use crate::error::Error;
use crate::ids::{ProductId, UserId};
use crate::service::Service;

pub(super) async fn get(service: &Service, caller: &Caller) -> Result<GetCartResponse, Error> {
    let user_id = UserId::new(caller.user_id()?);
    let cart = {
        let mut db = service.db.acquire().await?;
        Cart::find(&mut db, user_id).await?
    };
    let product_ids: Vec<_> = cart.items.iter().map(|item| item.product_id).collect();
    let quotes = match product_ids.as_slice() {
        [] => vec![],
        product_ids => ask_prices(service, caller, product_ids).await?,
    };
    let quotes = quotes.into_iter().filter_map(|quote| Some((ProductId::parse(&quote.product_id)?, quote)));
    let mut quotes: HashMap<_, _> = quotes.collect();
    let items = cart.items.iter().map(|item| to_proto(item, quotes.remove(&item.product_id).unwrap_or_default()));
    let items: Vec<_> = items.collect();
    let cart = CartProto { user_id: user_id.to_string(), total: add_up(&items), items, etag: etag(cart.version) };
    Ok(GetCartResponse { cart: Some(cart) })
}

/// A product that is unknown has no state.
fn to_proto(item: &Item, quote: ItemQuote) -> CartItem {
    let is_active = quote.state() == ProductState::Active;
    let unit_price = quote.unit_price.filter(|_| is_active);
    CartItem {
        product_id: item.product_id.to_string(),
        quantity: item.quantity,
        available: unit_price.is_some(),
        sku: quote.sku,
        title: quote.title,
        unit_price,
    }
}

/// The total of an order of what is available; none if there cannot be one.
fn add_up(items: &[CartItem]) -> Option<Money> {
    let mut total = None::<Money>;
    for item in items {
        let Some(price) = &item.unit_price else { continue };
        let sum = price.times(item.quantity).ok()?;
        total = Some(match total {
            Some(total) => total.plus(&sum).ok()?,
            None => sum,
        });
    }
    total?.checked().ok()
}
