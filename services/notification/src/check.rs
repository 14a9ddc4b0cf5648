//! I7, as far as the tables of this service can show it. For `souk check`.

use std::collections::HashMap;
use std::time::Duration;

use chassis::Unexpected;
use chassis::check::Range;
use sqlx::PgPool;
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

/// What should have been delivered, or have ended, by now.
pub struct Deadlines {
    /// Attempts that began before this time should have ended.
    ended: OffsetDateTime,
    /// Mails, and text messages, that could be claimed before these times: one that was caused long after them is delivered, and workers
    /// claim what is due for longest.
    overtaken: [OffsetDateTime; 2],
}

impl Deadlines {
    pub async fn read(db: &PgPool, ended: OffsetDateTime) -> Result<Self, Unexpected> {
        let newest = sqlx::query!(
            "select (select created_at from notification where channel = 'EMAIL' and state = 'DELIVERED'
                       order by notification_id desc limit 1) as email,
               (select created_at from notification where channel = 'SMS' and state = 'DELIVERED'
                  order by notification_id desc limit 1) as sms"
        );
        let newest = newest.fetch_one(db).await?;
        let before = |newest: Option<OffsetDateTime>| newest.unwrap_or(OffsetDateTime::UNIX_EPOCH) - OVERTAKEN_AFTER;
        Ok(Self { ended, overtaken: [newest.email, newest.sms].map(before) })
    }
}

/// The notifications of the orders of a range, by order.
pub async fn told(db: &PgPool, range: Range, deadlines: &Deadlines) -> Result<HashMap<Uuid, Vec<Told>>, Unexpected> {
    let rows = sqlx::query!(
        r#"select subject_id, kind, channel, state, state = 'PENDING' and (wanted_at < $3
               or due_at < case channel when 'EMAIL' then $4::timestamptz else $5::timestamptz end
                 -- It waits for one that the customer is told first.
                 and not exists (select from notification as earlier
                   where earlier.subject_id = it.subject_id and earlier.channel = it.channel
                     and earlier.notification_id < it.notification_id and earlier.state = 'PENDING')) as "is_late!"
           from notification as it where subject_id > $1 and subject_id <= $2 and kind like 'ORDER%'"#,
        range.after,
        range.last,
        deadlines.ended,
        deadlines.overtaken[0],
        deadlines.overtaken[1],
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
