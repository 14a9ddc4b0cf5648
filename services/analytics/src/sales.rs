//! Sales of hours or days, per currency.

use std::collections::BTreeMap;

use chassis::timestamp;
use contracts::souk::analytics::v1::*;
use contracts::souk::r#type::v1::Money;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::error::Error;
use crate::range::Range;
use crate::service::Service;

const MAX_DAYS: i64 = 366;
const MAX_DAYS_BY_HOUR: i64 = 31;

pub(crate) async fn summarize(
    service: &Service,
    request: GetSalesSummaryRequest,
) -> Result<GetSalesSummaryResponse, Error> {
    let unit = unit_of(request.granularity());
    let max_days = if unit == "hour" { MAX_DAYS_BY_HOUR } else { MAX_DAYS };
    let range = Range::resolve(service, &request.start_date, &request.end_date, max_days).await?;
    let rows = read(service, unit, &range, &request.currency).await?;
    let mut totals = BTreeMap::<String, Row>::new();
    for row in &rows {
        let total = totals.entry(row.currency.clone()).or_insert_with(|| Row {
            paid_orders: 0,
            gross: 0,
            refunded: 0,
            ..row.clone()
        });
        total.paid_orders += row.paid_orders;
        total.gross += row.gross;
        total.refunded += row.refunded;
    }
    Ok(GetSalesSummaryResponse {
        periods: rows.iter().map(Row::to_proto).collect(),
        totals: totals.values().map(Row::sales).collect(),
        start_date: range.first.to_string(),
        end_date: range.last.to_string(),
        time_zone: service.time_zone.name().to_owned(),
    })
}

/// Which unit of Postgres a period is.
pub(crate) fn unit_of(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Hour => "hour",
        Granularity::Day | Granularity::Unspecified => "day",
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    start_at: OffsetDateTime,
    end_at: OffsetDateTime,
    local_start: PrimitiveDateTime,
    pub(crate) currency: String,
    pub(crate) paid_orders: i64,
    pub(crate) gross: i64,
    pub(crate) refunded: i64,
}

/// Postgres truncates an hour that its clock shows twice to the right one of both, and knows when each day begins.
pub(crate) async fn read(
    service: &Service,
    unit: &str,
    range: &Range,
    currency: &str,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"with period as (
             select case $1 when 'hour' then date_trunc('hour', quarter, $2) end as hour,
               case $1 when 'day' then (quarter at time zone $2)::date end as day, currency,
               sum(paid_orders)::bigint as paid_orders, sum(gross)::bigint as gross, sum(refunded)::bigint as refunded
             from sales join projection using (projection_id)
             where state = 'LIVE' and quarter >= $3 and quarter < $4 and (currency = $5 or $5 = '')
             group by 1, 2, 3),
           bound as (
             select coalesce(hour, day_start(day, $2)) as start_at,
               coalesce(hour + interval '1 hour', day_start(day + 1, $2)) as end_at, period.* from period)
           select start_at as "start_at!", end_at as "end_at!", start_at at time zone $2 as "local_start!", currency,
             paid_orders as "paid_orders!", gross as "gross!", refunded as "refunded!"
           from bound order by start_at, currency"#,
        unit,
        service.time_zone.name(),
        range.start,
        range.end,
        currency,
    );
    rows.fetch_all(&service.reports).await
}

impl Row {
    fn sales(&self) -> Sales {
        let money = |minor| Some(Money::new(&self.currency, minor));
        Sales {
            paid_orders: self.paid_orders,
            gross: money(self.gross),
            refunded: money(self.refunded),
            net: money(self.gross - self.refunded),
        }
    }

    fn to_proto(&self) -> SalesPeriod {
        SalesPeriod {
            start_time: Some(timestamp(self.start_at)),
            end_time: Some(timestamp(self.end_at)),
            local_start: self.local_start(),
            sales: Some(self.sales()),
        }
    }

    pub(crate) fn local_start(&self) -> String {
        let ahead = (self.local_start.assume_utc() - self.start_at).whole_seconds();
        let offset = i32::try_from(ahead).ok().and_then(|seconds| UtcOffset::from_whole_seconds(seconds).ok());
        let local = self.start_at.to_offset(offset.unwrap_or(UtcOffset::UTC));
        local.format(&Rfc3339).unwrap_or_default()
    }
}
