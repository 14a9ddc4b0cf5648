//! Sales as CSV.

use contracts::souk::analytics::v1::*;
use sqlx::PgPool;
use testkit::fields;
use tonic::Status;

use super::figures::{interleaved, stories};
use super::{Fixture, MUG, Story};

impl Fixture {
    /// The parts of an export.
    async fn export(&self, first: &str, last: &str, granularity: Granularity) -> Result<Vec<String>, Status> {
        let (start_date, end_date) = (first.to_owned(), last.to_owned());
        let granularity = granularity.into();
        let request = ExportSalesRequest { start_date, end_date, granularity, currency: String::new() };
        let mut stream = self.client.clone().export_sales(self.kit.operator(request)).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await? {
            let body = part.body.expect("each message has a part");
            assert_eq!(body.content_type, "text/csv; charset=utf-8; header=present");
            parts.push(String::from_utf8(body.data).expect("UTF-8"));
        }
        Ok(parts)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_export_has_a_line_for_each_period_and_currency_and_an_end(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.kit.deliver_together(&interleaved(stories())).await;
    let days = fixture.export("2026-06-01", "2026-06-01", Granularity::Day).await.expect("exported").concat();
    assert_eq!(
        days,
        "start,currency,paid_orders,gross_minor,refunded_minor,net_minor\r\n\
         2026-06-01T00:00:00+02:00,EUR,3,4800,1500,3300\r\n\
         2026-06-01T00:00:00+02:00,USD,1,1100,0,1100\r\n\
         end,,,,,\r\n"
    );
    let hours = fixture.export("2026-06-01", "2026-06-01", Granularity::Hour).await.expect("exported").concat();
    assert_eq!(hours.lines().count(), 1 + 4 + 1, "{hours}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn years_are_exported_a_month_at_a_time(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for month in 1..=12 {
        for year in 2020..2026 {
            let when = format!("{year}-{month:02}-15T12:00:00Z");
            let order = (u128::from(year as u32) << 8) + month;
            let story = Story::placed(order, &when, "EUR", &[(MUG, 1, 100)]).paid();
            fixture.kit.deliver_together(&story.records).await;
        }
    }
    let parts = fixture.export("2020-01-01", "2025-12-31", Granularity::Hour).await.expect("exported");
    let text = parts.concat();
    assert_eq!(text.lines().count(), 1 + 72 + 1);
    assert!(parts.len() > 60 && parts.iter().all(|part| part.len() < 400), "no part has more than a month");
    assert!(text.ends_with("end,,,,,\r\n"));
    let refused = fixture.export("2010-01-01", "2025-12-31", Granularity::Day).await.expect_err("too many days");
    assert_eq!(fields(&refused), ["start_date"]);
}
