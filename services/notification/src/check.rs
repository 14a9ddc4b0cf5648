//! I7, as far as the tables of this service can show it. For `souk check`.

use std::collections::HashMap;
use std::time::Duration;

use chassis::Unexpected;
use chassis::check::Range;
use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

/// Longer than a worker's set takes.
const OVERTAKEN_AFTER: Duration = Duration::from_secs(600);

/// A notification of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Such as `ORDER_CONFIRMED`.
    pub kind: String,
    /// Such as `EMAIL`.
    pub channel: String,
    /// Such as `DELIVERED`.
    pub state: String,
    /// Whether it should have been delivered or have ended by now.
    pub is_late: bool,
}

/// The order of the `count`th row behind `after`.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select subject_id from notification where subject_id > $1 order by subject_id offset $2 limit 1",
        after,
        count - 1,
    );
    Ok(end.fetch_optional(db).await?)
}

/// The notifications of the orders of a range, by order. One that waits is late if its attempts began before `ended`, so that they
/// should have ended, or if one of its channel was delivered that was caused long after this one could be claimed: workers claim what
/// is due for longest.
pub async fn told(db: &PgPool, range: Range, ended: OffsetDateTime) -> Result<HashMap<Uuid, Vec<Told>>, Unexpected> {
    let rows = sqlx::query!(
        r#"with newest as (
             select channel, (select created_at from notification
               where notification.channel = it.channel and state = 'DELIVERED' order by notification_id desc limit 1)
             from (values ('EMAIL'), ('SMS')) as it (channel)
           )
           select subject_id, kind, channel, state, state = 'PENDING' and (wanted_at < $3 or exists (
               select from newest where newest.channel = it.channel and newest.created_at > it.due_at + $4::interval
                 -- It waits for one that the customer is told first.
                 and not exists (select from notification as earlier
                   where earlier.subject_id = it.subject_id and earlier.channel = it.channel
                     and earlier.notification_id < it.notification_id and earlier.due_at is not null))) as "is_late!"
           from notification as it where subject_id > $1 and subject_id <= $2 and kind like 'ORDER%'"#,
        range.after,
        range.last,
        ended,
        PgInterval::try_from(OVERTAKEN_AFTER).expect("it is in microseconds"),
    );
    let mut told = HashMap::<Uuid, Vec<Told>>::new();
    for row in rows.fetch_all(db).await? {
        told.entry(row.subject_id).or_default().push(Told {
            kind: row.kind,
            channel: row.channel,
            state: row.state,
            is_late: row.is_late,
        });
    }
    Ok(told)
}
