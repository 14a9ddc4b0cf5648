//! The catalogue without what is sold out. Stock belongs to the inventory service and changes with every order, so each page is
//! compared with it when it is read, and nothing is copied.

use std::collections::HashSet;

use chassis::Caller;
use chassis::rpc::client;
use chassis::rpc::page;
use contracts::souk::inventory::v1::BatchGetStockRequest;
use contracts::souk::product::v1::*;

use crate::error::Error;
use crate::list;
use crate::service::Service;

/// As many as inventory is asked about at once.
const CANDIDATES: usize = 100;
/// How often a page that is not full is filled up. Behind so many products that are sold out, it ends early.
const ROUNDS: usize = 10;

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    request: ListProductsRequest,
) -> Result<ListProductsResponse, Error> {
    if !request.in_stock {
        return list::list(service, &request).await;
    }
    let size = usize::try_from(page::size(request.page_size)?).expect("a page size is small and positive");
    let (mut ask, mut found) = (request, vec![]);
    for _ in 0..ROUNDS {
        // No more than are missing: the next page begins behind the last that was looked at.
        ask.page_size = i32::try_from(CANDIDATES.min(size - found.len())).expect("a page size is small");
        let ListProductsResponse { products, next_page_token } = list::list(service, &ask).await?;
        found.extend(available(service, caller, products).await?);
        ask.page_token = next_page_token;
        if ask.page_token.is_empty() || found.len() == size {
            break;
        }
    }
    Ok(ListProductsResponse { products: found, next_page_token: ask.page_token })
}

async fn available(service: &Service, caller: &Caller, mut products: Vec<Product>) -> Result<Vec<Product>, Error> {
    if products.is_empty() {
        return Ok(products);
    }
    let ask = BatchGetStockRequest { skus: products.iter().map(|product| product.sku.clone()).collect() };
    let stocks = client::read(caller.deadline, ask, |ask| {
        let mut inventory = service.inventory.clone();
        async move { inventory.batch_get_stock(ask).await }
    });
    let stocks = stocks.await.map_err(|status| client::failed("inventory", status))?.stocks;
    let available: HashSet<_> = stocks.into_iter().filter(|stock| stock.available > 0).map(|stock| stock.sku).collect();
    products.retain(|product| available.contains(&product.sku));
    Ok(products)
}
