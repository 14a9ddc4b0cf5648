//! Price the lines of an order: one query, never a cache.

use std::collections::HashMap;

use contracts::souk::product::v1::{ItemQuote, QuoteItemsRequest, QuoteItemsResponse};
use contracts::souk::r#type::v1::Money;

use crate::Service;
use crate::error::Error;
use crate::product::{Product, parse_id};

pub(crate) async fn quote(service: &Service, request: QuoteItemsRequest) -> Result<QuoteItemsResponse, Error> {
    let asked = request.product_ids.iter().enumerate();
    let ids = asked.map(|(at, id)| parse_id(id, &format!("product_ids[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    let found = sqlx::query_as!(
        Product,
        "select product_id, sku, title, description, currency, price_minor, state, version, created_at, updated_at
         from product where product_id = any($1)",
        &ids,
    )
    .fetch_all(&service.db)
    .await?;
    let found: HashMap<_, _> = found.into_iter().map(|product| (product.product_id, product)).collect();
    let quotes = ids.iter().map(|id| match found.get(id) {
        None => ItemQuote { product_id: id.to_string(), ..Default::default() },
        Some(product) => ItemQuote {
            product_id: id.to_string(),
            state: product.state().into(),
            sku: product.sku.clone(),
            title: product.title.clone(),
            unit_price: Some(Money::new(product.currency.clone(), product.price_minor)),
        },
    });
    Ok(QuoteItemsResponse { quotes: quotes.collect() })
}
