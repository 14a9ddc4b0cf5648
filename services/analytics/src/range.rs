//! The days that a request asks for, in the shop's time zone.

use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime};

use crate::error::Error;
use crate::service::Service;

pub(crate) struct Range {
    pub(crate) first: Date,
    pub(crate) last: Date,
    /// When the first day begins.
    pub(crate) start: OffsetDateTime,
    /// When the last day has ended.
    pub(crate) end: OffsetDateTime,
}

impl Range {
    /// The last day is today, and the first one 29 days before, unless the request has others. Postgres knows when they begin.
    pub(crate) async fn resolve(
        service: &Service,
        start_date: &str,
        end_date: &str,
        max_days: i64,
    ) -> Result<Self, Error> {
        let (first, last) = (parse("start_date", start_date)?, parse("end_date", end_date)?);
        let range = Self::read(service, first, last).await?;
        if range.first > range.last {
            return Err(Error::field("start_date", format!("it is after the last day, {}", range.last)));
        }
        let days = (range.last - range.first).whole_days() + 1;
        if days > max_days {
            return Err(Error::field(
                "start_date",
                format!("these are {days} days; {max_days} at most are read at once"),
            ));
        }
        Ok(range)
    }

    /// These days.
    pub(crate) async fn of(service: &Service, first: Date, last: Date) -> Result<Self, sqlx::Error> {
        Self::read(service, Some(first), Some(last)).await
    }

    async fn read(service: &Service, first: Option<Date>, last: Option<Date>) -> Result<Self, sqlx::Error> {
        let range = sqlx::query_as!(
            Self,
            r#"select first as "first!", last as "last!", day_start(first, $4) as "start!",
                 day_start(last + 1, $4) as "end!"
               from (select coalesce($2, last - 29) as first, last
                 from (select coalesce($3, ($1::timestamptz at time zone $4)::date) as last) as ending) as days"#,
            service.clock.now(),
            first,
            last,
            service.time_zone.name(),
        );
        range.fetch_one(&service.reports).await
    }
}

fn parse(field: &str, date: &str) -> Result<Option<Date>, Error> {
    if date.is_empty() {
        return Ok(None);
    }
    let date = Date::parse(date, &Iso8601::DATE);
    date.map(Some).map_err(|_| Error::field(field, "there is no such day"))
}
