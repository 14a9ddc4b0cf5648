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

/// Inserts those that are not there yet: an order has each outcome once, and a customer is told of it once. Nobody is told of
/// what happened before `oldest`: a service that is new reads all events that there ever were.
pub(crate) async fn insert(
    tx: &mut PgConnection,
    now: OffsetDateTime,
    oldest: OffsetDateTime,
    mut new: Vec<New>,
) -> Result<(), Unexpected> {
    if new.is_empty() {
        return Ok(());
    }
    // A fixed order, so that transactions that insert the same rows cannot deadlock.
    new.sort_by_key(|it| (it.subject_id, it.kind.name(), it.channel.name()));
    sqlx::query!(
        "insert into notification (notification_id, user_id, subject_id, kind, channel, event, occurred_at, state, attempts,
           error, due_at, created_at, wanted_at)
         select notification_id, user_id, subject_id, kind, channel, event, occurred_at,
           case when occurred_at < $9::timestamptz then 'DROPPED' else 'PENDING' end, 0,
           case when occurred_at < $9::timestamptz then 'it happened too long ago' else '' end,
           case when occurred_at < $9::timestamptz then null else $8::timestamptz end, $8::timestamptz, $8::timestamptz
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::timestamptz[])
           as new (notification_id, user_id, subject_id, kind, channel, event, occurred_at)
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
    pub(crate) fn to_proto(&self) -> proto::Notification {
        proto::Notification {
            notification_id: self.notification_id.to_string(),
            user_id: self.user_id.to_string(),
            order_id: if self.kind.is_of_order() { self.subject_id.to_string() } else { String::new() },
            kind: self.kind.to_proto().into(),
            channel: self.channel.to_proto().into(),
            state: self.state.to_proto().into(),
            attempts: self.attempts,
            error: self.error.clone(),
            create_time: Some(timestamp(self.created_at)),
            deliver_time: self.delivered_at.map(timestamp),
        }
    }
}
