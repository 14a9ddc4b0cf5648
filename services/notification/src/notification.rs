//! Notifications, as they are stored.

use chassis::{Unexpected, timestamp};
use contracts::souk::notification::v1 as proto;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::ids::{NotificationId, UserId};
use crate::kind::{Channel, Kind, State};

/// One that an event causes.
#[derive(Clone)]
pub(crate) struct New {
    pub(crate) notification_id: Uuid,
    pub(crate) user_id: UserId,
    /// The order, or the request for a mail.
    pub(crate) subject_id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    /// The payload of the event.
    pub(crate) event: Vec<u8>,
    pub(crate) occurred_at: OffsetDateTime,
}

/// How many notifications of a user wait at once. Links are exempt: the user service limits them.
const WAITING_PER_USER: i64 = 500;

/// Inserts those that are not there yet: an order has each outcome once, and a customer is told of it once. Nobody is told of
/// what happened before `oldest`: a service that is new reads all events that there ever were. What is beyond the number of a user's
/// that may wait is dropped.
pub(crate) async fn insert(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    oldest: OffsetDateTime,
    new: Vec<New>,
) -> Result<(), Unexpected> {
    if new.is_empty() {
        return Ok(());
    }
    // In a fixed order, so that transactions that insert the same rows cannot deadlock.
    sqlx::query!(
        "with new as (
           select *, row_number() over (partition by user_id order by notification_id)
             + (select count(*) from (select from notification as other
                  where other.user_id = it.user_id and other.due_at is not null limit $11) as waiting) as rank
           from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::timestamptz[])
             as it (notification_id, user_id, subject_id, kind, channel, event, occurred_at)
         ), judged as (
           select *, case
             when occurred_at < $9::timestamptz then 'it happened too long ago'
             when rank > $11 and kind = any($10) then 'too many notifications of the user wait' end as why_dropped
           from new
         )
         insert into notification (notification_id, user_id, subject_id, kind, channel, event, occurred_at, state, attempts,
           error, due_at, created_at, wanted_at)
         select notification_id, user_id, subject_id, kind, channel, event, occurred_at,
           case when why_dropped is null then 'PENDING' else 'DROPPED' end, 0, coalesce(why_dropped, ''),
           case when why_dropped is null then $8::timestamptz end, $8::timestamptz, $8::timestamptz
         from judged order by subject_id, kind, channel
         on conflict on constraint notification_once do nothing",
        &new.iter().map(|it| it.notification_id).collect::<Vec<_>>(),
        &new.iter().map(|it| it.user_id.0).collect::<Vec<_>>(),
        &new.iter().map(|it| it.subject_id).collect::<Vec<_>>(),
        &new.iter().map(|it| it.kind.name()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|it| it.channel.name()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|it| it.event.clone()).collect::<Vec<_>>(),
        &new.iter().map(|it| it.occurred_at).collect::<Vec<_>>(),
        now,
        oldest,
        &Kind::names(Kind::is_of_order) as &[&str],
        WAITING_PER_USER,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// One as people see it.
pub(crate) struct Notification {
    pub(crate) notification_id: NotificationId,
    pub(crate) user_id: UserId,
    pub(crate) subject_id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    pub(crate) state: State,
    pub(crate) attempts: i32,
    pub(crate) error: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) delivered_at: Option<OffsetDateTime>,
}

impl Notification {
    /// Why an attempt failed is for operators: it names settings and services.
    pub(crate) fn to_proto(&self, is_for_operator: bool) -> proto::Notification {
        proto::Notification {
            notification_id: self.notification_id.to_string(),
            user_id: self.user_id.to_string(),
            order_id: if self.kind.is_of_order() { self.subject_id.to_string() } else { String::new() },
            kind: self.kind.to_proto().into(),
            channel: self.channel.to_proto().into(),
            state: self.state.to_proto().into(),
            attempts: self.attempts,
            error: if is_for_operator { self.error.clone() } else { String::new() },
            create_time: Some(timestamp(self.created_at)),
            deliver_time: self.delivered_at.map(timestamp),
        }
    }
}
