//! The products that sold best.

use contracts::souk::analytics::v1::*;
use contracts::souk::r#type::v1::Money;

use crate::error::Error;
use crate::range::Range;
use crate::service::Service;

/// A row for each product that sold in a quarter of an hour: so fewer days than of other figures.
const MAX_DAYS: i64 = 93;
const DEFAULT_LIMIT: i32 = 50;

pub(crate) async fn list(service: &Service, request: ListTopProductsRequest) -> Result<ListTopProductsResponse, Error> {
    let by_gross = request.rank() == ProductRank::Gross;
    if by_gross && request.currency.is_empty() {
        return Err(Error::field("currency", "amounts of different currencies cannot be compared: name one"));
    }
    let range = Range::resolve(service, &request.start_date, &request.end_date, MAX_DAYS).await?;
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit };
    let rows = sqlx::query!(
        r#"with best as (
             select projection_id, product_id, currency, max(quarter) as quarter, sum(orders)::bigint as orders,
               sum(units)::bigint as units, sum(gross)::bigint as gross
             from product_sales join projection using (projection_id)
             where state = 'LIVE' and quarter >= $1 and quarter < $2 and (currency = $3 or $3 = '')
             group by projection_id, product_id, currency
             order by case when $4 then sum(gross) else sum(units) end desc, product_id, currency limit $5)
           select product_id, currency, sku, title, best.orders as "orders!", best.units as "units!", best.gross as "gross!"
           from best join product_sales using (projection_id, quarter, product_id, currency)
           order by case when $4 then best.gross else best.units end desc, product_id, currency"#,
        range.start,
        range.end,
        request.currency,
        by_gross,
        i64::from(limit),
    );
    let rows = rows.fetch_all(&service.reports).await?.into_iter();
    let products = rows.map(|row| TopProduct {
        product_id: row.product_id.to_string(),
        sku: row.sku,
        title: row.title,
        orders: row.orders,
        units: row.units,
        gross: Some(Money::new(row.currency, row.gross)),
    });
    Ok(ListTopProductsResponse {
        products: products.collect(),
        start_date: range.first.to_string(),
        end_date: range.last.to_string(),
        time_zone: service.time_zone.name().to_owned(),
    })
}
