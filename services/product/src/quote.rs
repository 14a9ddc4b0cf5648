//! Price the lines of an order: one query, never a cache.

use std::collections::HashMap;

use contracts::souk::product::v1::{ItemQuote, QuoteItemsRequest, QuoteItemsResponse};
use contracts::souk::r#type::v1::Money;

use crate::error::Error;
use crate::product::{Product, parse_ids};
use crate::service::Service;

pub(crate) async fn quote(service: &Service, request: QuoteItemsRequest) -> Result<QuoteItemsResponse, Error> {
    let product_ids = parse_ids(&request.product_ids)?;
    let found = Product::find_all(&service.db, &product_ids).await?;
    let found: HashMap<_, _> = found.into_iter().map(|product| (product.product_id, product)).collect();
    let quotes = product_ids.iter().map(|product_id| match found.get(product_id) {
        None => ItemQuote { product_id: product_id.to_string(), ..Default::default() },
        Some(product) => ItemQuote {
            product_id: product_id.to_string(),
            state: product.state.to_proto().into(),
            sku: product.sku.clone(),
            title: product.title.clone(),
            unit_price: Some(Money::new(product.currency.clone(), product.price_minor)),
        },
    });
    Ok(QuoteItemsResponse { quotes: quotes.collect() })
}
