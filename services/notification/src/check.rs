//! I7, as far as the tables of this service can show it. For `souk check`.

use std::collections::HashMap;

use chassis::Unexpected;
use chassis::check::Range;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

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

/// The `count`th order behind `after` that has a notification.
pub async fn range_end(db: &PgPool, after: Uuid, count: i64) -> Result<Option<Uuid>, Unexpected> {
    let end = sqlx::query_scalar!(
        "select subject_id from notification where subject_id > $1 order by subject_id offset $2 limit 1",
        after,
        count - 1,
    );
    Ok(end.fetch_optional(db).await?)
}

/// The notifications of the orders of a range, by order. `late` is when those that wait should have ended.
pub async fn told(db: &PgPool, range: Range, late: OffsetDateTime) -> Result<HashMap<Uuid, Vec<Told>>, Unexpected> {
    let rows = sqlx::query!(
        r#"select subject_id, kind, channel, state, state = 'PENDING' and wanted_at < $3 as "is_late!" from notification
           where subject_id > $1 and subject_id <= $2 and kind like 'ORDER%'"#,
        range.after,
        range.last,
        late,
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
