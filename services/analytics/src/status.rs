//! Which projection is shown, how far it is behind, and how far a rebuild is.

use chassis::timestamp;
use contracts::souk::analytics::v1::*;

use crate::error::Error;
use crate::lag;
use crate::service::Service;

pub(crate) async fn get(service: &Service) -> Result<GetProjectionStatusResponse, Error> {
    let projections = sqlx::query!(
        "select projection_id, state, created_at, live_at, read_records, total_records, rebuild_failure from projection
         where state in ('BUILDING', 'LIVE')",
    );
    let (projections, mut response) =
        (projections.fetch_all(&service.db).await?, GetProjectionStatusResponse::default());
    for it in projections {
        response.rebuild_failure += &it.rebuild_failure;
        let projection = Projection {
            projection_id: it.projection_id,
            create_time: Some(timestamp(it.created_at)),
            live_time: it.live_at.map(timestamp),
            read_records: it.read_records,
            total_records: it.total_records,
        };
        *(if it.state == "LIVE" { &mut response.live } else { &mut response.building }) = Some(projection);
    }
    if response.building.is_some() {
        response.rebuild_failure.clear();
    }
    let lag = lag::read(&service.db, service.clock.now()).await?;
    response.lag_events = lag.events;
    response.lag_seconds = lag.seconds;
    response.measure_time = lag.measured_at.map(timestamp);
    response.time_zone = service.time_zone.name().to_owned();
    Ok(response)
}
