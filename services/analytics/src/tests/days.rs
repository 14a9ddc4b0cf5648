//! Days and hours of the shop's time zone.

use contracts::souk::analytics::v1::*;
use sqlx::PgPool;
use testkit::fields;

use super::{Fixture, MUG, Story, figures};

/// An order for each hour of UTC in these, at its half, paid at once.
async fn hourly(fixture: &Fixture, first: &str, hours: u64) {
    let first = super::at(first);
    // Other orders in other hours.
    let number = u128::from(first.unix_timestamp().unsigned_abs() / 3_600);
    for hour in 0..hours {
        let when = first + std::time::Duration::from_secs(hour * 3_600 + 1_800);
        let when = when.format(&time::format_description::well_known::Rfc3339).expect("a time");
        let story = Story::placed(number + u128::from(hour), &when, "EUR", &[(MUG, 1, 100)]).paid();
        fixture.kit.deliver_together(&story.records).await;
    }
}

fn orders(response: &GetSalesSummaryResponse) -> Vec<(&str, i64)> {
    response.periods.iter().map(|it| (&it.local_start[..], it.sales.as_ref().map_or(0, |it| it.paid_orders))).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_day_has_23_hours_when_clocks_go_forward_and_25_when_they_go_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    hourly(&fixture, "2026-03-28T20:00:00Z", 34).await;
    let spring = fixture.sales("2026-03-28", "2026-03-30", Granularity::Day).await;
    let days = [("2026-03-28T00:00:00+01:00", 3), ("2026-03-29T00:00:00+01:00", 23), ("2026-03-30T00:00:00+02:00", 8)];
    assert_eq!(orders(&spring), days);
    let [_, sunday, _] = &spring.periods[..] else { panic!("three days") };
    let seconds = |it: &Option<prost_types::Timestamp>| it.as_ref().map_or(0, |it| it.seconds);
    assert_eq!(seconds(&sunday.end_time) - seconds(&sunday.start_time), 23 * 3_600);
    let hours = fixture.sales("2026-03-29", "2026-03-29", Granularity::Hour).await;
    assert_eq!(hours.periods.len(), 23);
    assert_eq!(orders(&hours)[1..3], [("2026-03-29T01:00:00+01:00", 1), ("2026-03-29T03:00:00+02:00", 1)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_hour_that_the_clock_shows_twice_is_two(db: PgPool) {
    let fixture = Fixture::open(db).await;
    hourly(&fixture, "2026-10-24T20:00:00Z", 34).await;
    let autumn = fixture.sales("2026-10-24", "2026-10-26", Granularity::Day).await;
    let days = [("2026-10-24T00:00:00+02:00", 2), ("2026-10-25T00:00:00+02:00", 25), ("2026-10-26T00:00:00+01:00", 7)];
    assert_eq!(orders(&autumn), days);
    let hours = fixture.sales("2026-10-25", "2026-10-25", Granularity::Hour).await;
    assert_eq!(hours.periods.len(), 25);
    assert_eq!(orders(&hours)[2..4], [("2026-10-25T02:00:00+02:00", 1), ("2026-10-25T02:00:00+01:00", 1)]);
}

/// Then the day begins with the first midnight, and has 25 hours.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn midnight_may_come_twice(db: PgPool) {
    let azores = Fixture::open_in("Atlantic/Azores", db.clone()).await;
    hourly(&azores, "2026-10-24T20:00:00Z", 34).await;
    let days = azores.sales("2026-10-24", "2026-10-26", Granularity::Day).await;
    let expected = [("2026-10-24T00:00:00Z", 4), ("2026-10-25T00:00:00Z", 25), ("2026-10-26T00:00:00-01:00", 5)];
    assert_eq!(orders(&days), expected);
    let seconds = |it: &Option<prost_types::Timestamp>| it.as_ref().map_or(0, |it| it.seconds);
    assert_eq!(seconds(&days.periods[1].end_time), seconds(&days.periods[2].start_time));
    let sunday = azores.sales("2026-10-25", "2026-10-25", Granularity::Day).await;
    assert_eq!(orders(&sunday), expected[1..2]);
    let hours = azores.sales("2026-10-25", "2026-10-25", Granularity::Hour).await;
    assert_eq!(hours.periods.len(), 25);
    assert_eq!(orders(&hours)[..2], [("2026-10-25T00:00:00Z", 1), ("2026-10-25T00:00:00-01:00", 1)]);

    let havana = Fixture::open_in("America/Havana", db).await;
    hourly(&havana, "2026-11-01T02:00:00Z", 30).await;
    let days = havana.sales("2026-10-31", "2026-11-02", Granularity::Day).await;
    let expected =
        [("2026-10-31T00:00:00-04:00", 2), ("2026-11-01T00:00:00-04:00", 25), ("2026-11-02T00:00:00-05:00", 3)];
    assert_eq!(orders(&days), expected);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn days_of_any_time_zone_are_made_of_whole_quarters(db: PgPool) {
    for (time_zone, day) in
        [("Asia/Kathmandu", "2026-01-01T00:00:00+05:45"), ("Pacific/Auckland", "2026-01-01T00:00:00+13:00")]
    {
        let fixture = Fixture::open_in(time_zone, db.clone()).await;
        let first = time::OffsetDateTime::parse(day, &time::format_description::well_known::Rfc3339).expect("a time");
        for (order, second) in [(0, -1), (1, 0), (2, 86_399), (3, 86_400)] {
            let when = (first + time::Duration::seconds(second)).to_offset(time::UtcOffset::UTC);
            let when = when.format(&time::format_description::well_known::Rfc3339).expect("a time");
            let order = order + u128::from(time_zone.len() as u64) * 16;
            let story = Story::placed(order, &when, "EUR", &[(MUG, 1, 100)]).paid();
            // All of one moment.
            let records = story.records.into_iter().map(|mut record| {
                record.occurred_at = super::at(&when);
                record
            });
            fixture.kit.deliver_together(&records.collect::<Vec<_>>()).await;
        }
        let found = fixture.sales("2026-01-01", "2026-01-01", Granularity::Day).await;
        let [total] = &found.totals[..] else { panic!("{found:?}") };
        assert_eq!(figures(total).1, 2, "{time_zone}");
        sqlx::query("truncate sales").execute(&db).await.expect("truncated");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn bad_days_are_refused_and_named(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = async |start_date: &str, end_date: &str, granularity: Granularity| {
        let (start_date, end_date) = (start_date.to_owned(), end_date.to_owned());
        let granularity = granularity.into();
        let request = GetSalesSummaryRequest { start_date, end_date, granularity, currency: String::new() };
        fields(&fixture.try_sales(request).await.expect_err("refused"))
    };
    assert_eq!(refused("2026-02-29", "", Granularity::Day).await, ["start_date"], "no leap year");
    assert_eq!(refused("", "today", Granularity::Day).await, ["end_date"]);
    assert_eq!(refused("2026-01-02", "2026-01-01", Granularity::Day).await, ["start_date"], "backwards");
    assert_eq!(refused("2025-01-01", "2026-01-02", Granularity::Day).await, ["start_date"], "367 days");
    assert_eq!(refused("2025-01-01", "2025-02-01", Granularity::Hour).await, ["start_date"], "32 days by hours");
    fixture.sales("2024-01-01", "2024-12-31", Granularity::Day).await;
    fixture.sales("2025-01-01", "2025-01-31", Granularity::Hour).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_parameters_it_is_the_last_thirty_days(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let response = fixture.try_sales(GetSalesSummaryRequest::default()).await.expect("nothing is required");
    let today = fixture.service.clock.now().to_offset(time::UtcOffset::from_hms(1, 0, 0).expect("an offset")).date();
    assert_eq!(response.end_date, today.to_string());
    assert_eq!(response.start_date, (today - time::Duration::days(29)).to_string());
    assert_eq!((response.periods.len(), &response.time_zone[..]), (0, "Europe/Berlin"));
}
