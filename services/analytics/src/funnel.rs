//! How far orders came, and how long it took to confirm them.

use contracts::souk::analytics::v1::*;

use crate::error::Error;
use crate::fact::{OTHER, Stage};
use crate::range::Range;
use crate::service::Service;
use crate::sketch::percentile;

const MAX_DAYS: i64 = 366;
/// How many different exits a response has, before the others of each kind are added up.
const MAX_EXITS: usize = 100;

pub(crate) async fn get(
    service: &Service,
    request: GetCheckoutFunnelRequest,
) -> Result<GetCheckoutFunnelResponse, Error> {
    let range = Range::resolve(service, &request.start_date, &request.end_date, MAX_DAYS).await?;
    let stages = sqlx::query!(
        r#"select stage, reason, sum(orders)::bigint as "orders!" from funnel join projection using (projection_id)
           where state = 'LIVE' and quarter >= $1 and quarter < $2
           group by stage, reason order by sum(orders) desc, stage, reason"#,
        range.start,
        range.end,
    );
    let (stages, mut response) = (stages.fetch_all(&service.reports).await?, GetCheckoutFunnelResponse::default());
    for row in stages {
        let stage = |stage: Stage| stage.name() == row.stage;
        match exit_of(&row.stage) {
            Some(exit) => add_exit(&mut response.exits, exit, row.reason, row.orders),
            None if stage(Stage::Placed) => response.placed += row.orders,
            None if stage(Stage::Reserved) => response.reserved += row.orders,
            None if stage(Stage::Confirmed) => response.confirmed += row.orders,
            None if stage(Stage::Paid) => response.paid += row.orders,
            None => response.fulfilled += row.orders,
        }
    }
    response.confirmation_time = Some(confirmation_time(service, &range).await?);
    response.start_date = range.first.to_string();
    response.end_date = range.last.to_string();
    response.time_zone = service.time_zone.name().to_owned();
    Ok(response)
}

fn exit_of(stage: &str) -> Option<Exit> {
    let exits = [
        (Stage::Rejected, Exit::Rejected),
        (Stage::PaymentFailed, Exit::PaymentFailed),
        (Stage::Cancelled, Exit::Cancelled),
        (Stage::Expired, Exit::Expired),
    ];
    exits.into_iter().find(|(known, _)| known.name() == stage).map(|(_, exit)| exit)
}

fn add_exit(exits: &mut Vec<FunnelExit>, exit: Exit, reason: String, orders: i64) {
    let reason = if exits.len() < MAX_EXITS { reason } else { OTHER.to_owned() };
    match exits.iter_mut().find(|it| it.exit() == exit && it.reason == reason) {
        Some(known) => known.orders += orders,
        None => exits.push(FunnelExit { exit: exit.into(), reason, orders }),
    }
}

async fn confirmation_time(service: &Service, range: &Range) -> Result<ConfirmationTime, Error> {
    let rows = sqlx::query!(
        r#"select bucket, sum(orders)::bigint as "orders!" from confirmation_time join projection using (projection_id)
           where state = 'LIVE' and quarter >= $1 and quarter < $2 group by bucket order by bucket"#,
        range.start,
        range.end,
    );
    let rows = rows.fetch_all(&service.reports).await?;
    let counts: Vec<_> = rows.into_iter().map(|row| (row.bucket, row.orders)).collect();
    let share = |share| percentile(&counts, share).and_then(|it| prost_types::Duration::try_from(it).ok());
    let orders = counts.iter().map(|(_, orders)| orders).sum();
    Ok(ConfirmationTime { orders, p50: share(0.5), p90: share(0.9), p99: share(0.99) })
}
