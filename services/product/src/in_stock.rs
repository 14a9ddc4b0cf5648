//! The catalogue without what is sold out. Stock belongs to the inventory service and changes with every order, so each page is
//! compared with it when it is read, and nothing is copied.

use std::collections::HashSet;
use std::time::Duration;

use chassis::Caller;
use chassis::rpc::{client, page};
use contracts::souk::inventory::v1::BatchGetStockRequest;
use contracts::souk::product::v1::*;

use crate::error::Error;
use crate::list::{self, Listed};
use crate::product::Product;
use crate::service::Service;

/// As many as inventory is asked about at once.
const CANDIDATES: usize = 100;
/// How many times as many one request looks at. If most of them are sold out, its page is not full.
const ROUNDS: usize = 3;
/// How long a request waits for others.
const BEGINS_WITHIN: Duration = Duration::from_millis(500);

pub(crate) async fn list(
    service: &Service,
    caller: &Caller,
    mut request: ListProductsRequest,
) -> Result<ListProductsResponse, Error> {
    // A place in the list is the same with the filter and without it, and so are page tokens.
    if !std::mem::take(&mut request.in_stock) {
        return list::list(service, &request).await;
    }
    // Anybody may ask, and each request makes several others, so there are a few at a time.
    let permit = tokio::time::timeout(BEGINS_WITHIN, service.comparisons.acquire()).await;
    let _permit = permit.map_err(|_| chassis::Error::Overloaded)?.expect("the semaphore is never closed");

    let size = page::size(request.page_size)?;
    request.page_size = i32::try_from(CANDIDATES).expect("it is small");
    let mut found = vec![];
    for round in 0..ROUNDS {
        let (available, next) = match look(service, caller, &request).await {
            Ok(seen) => seen,
            // What was found is a page, and the next one begins here.
            Err(_) if round > 0 => break,
            Err(error) => return Err(error),
        };
        found.extend(available);
        request.page_token = next;
        if found.len() >= size || request.page_token.is_empty() {
            break;
        }
    }
    let next_page_token = if found.len() > size { list::cut(&mut found, size) } else { request.page_token };
    let products = Product::find_in_order(&service.lists, &list::ids(&found)).await?;
    Ok(ListProductsResponse { products, next_page_token })
}

/// Those of the next candidates that are in stock, and the token of what follows the candidates.
async fn look(
    service: &Service,
    caller: &Caller,
    request: &ListProductsRequest,
) -> Result<(Vec<Listed>, String), Error> {
    let mut candidates = list::read(service, request).await?;
    let next = list::cut(&mut candidates, CANDIDATES);
    if candidates.is_empty() {
        return Ok((candidates, next));
    }
    let ask = BatchGetStockRequest { skus: candidates.iter().map(|it| it.sku.clone()).collect() };
    let stocks = client::read(caller.deadline, ask, |ask| {
        let mut inventory = service.inventory.clone();
        async move { inventory.batch_get_stock(ask).await }
    });
    let stocks = stocks.await.map_err(|status| client::failed("inventory", status))?.stocks;
    let available: HashSet<_> = stocks.into_iter().filter(|stock| stock.available > 0).map(|stock| stock.sku).collect();
    candidates.retain(|it| available.contains(&it.sku));
    Ok((candidates, next))
}
