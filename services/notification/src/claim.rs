//! Leases: only the worker that claimed a notification delivers it, until the lease ends.

use std::time::Duration;

use chassis::Unexpected;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::ids::{NotificationId, UserId};
use crate::kind::{Channel, Kind};
use crate::service::Service;

const HOUR: Duration = Duration::from_secs(3_600);
/// When a notification beyond the limit of its user is looked at again, if those before it are not delivered yet.
const LIMITED_FOR: Duration = Duration::from_secs(60);

/// A notification with a lease on it.
pub(crate) struct Claimed {
    pub(crate) notification_id: NotificationId,
    pub(crate) lease: Uuid,
    pub(crate) user_id: UserId,
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    pub(crate) event: Vec<u8>,
    /// The day of its order, whose id begins with its time.
    pub(crate) ordered_on: Date,
    /// The day of its event.
    pub(crate) happened_on: Date,
    pub(crate) attempts: i32,
    pub(crate) unknown_outcomes: i32,
    pub(crate) wanted_at: OffsetDateTime,
    /// Whether an operator requested this delivery.
    pub(crate) is_resent: bool,
    /// Whether its user does not want it.
    pub(crate) is_unwanted: bool,
    /// Its place among the notifications of its user within an hour: after those that were delivered, and those that others deliver now.
    rank: i64,
    /// If the user has got as many as an hour allows: when the first of these was delivered, which makes room an hour later.
    full_since: Option<OffsetDateTime>,
}

impl Claimed {
    /// When its user may get it; None: now. Links are exempt: the user service limits them, and they are not valid for long.
    pub(crate) fn limited_until(&self, service: &Service) -> Option<OffsetDateTime> {
        let is_limited = self.kind.is_of_order() && service.per_hour.is_some_and(|most| self.rank > most);
        let until = || self.full_since.map_or(service.clock.now() + LIMITED_FOR, |since| since + HOUR);
        is_limited.then(until)
    }
}

/// Claims the notifications that are due for longest, and records the attempts. If the process is killed, they are due again when
/// the lease ends. What an order's customer is told first is delivered first. Kinds that only a later release knows are left to it.
pub(crate) async fn claim(service: &Service, channel: Channel, most: i64) -> Result<Vec<Claimed>, Unexpected> {
    let now = service.clock.now();
    let claimed = sqlx::query_as!(
        Claimed,
        r#"with due as (
             select notification_id from notification
             where channel = $1 and due_at <= $2 and kind = any($8)
               and not exists (select from notification as earlier
                 where earlier.subject_id = notification.subject_id and earlier.channel = $1 and earlier.kind = any($8)
                   and earlier.notification_id < notification.notification_id and earlier.state = 'PENDING')
             order by due_at limit $3 for no key update skip locked
           ), claimed as (
             update notification set lease = $4, due_at = $5, attempts = attempts + 1
             from due where notification.notification_id = due.notification_id
             returning notification.*
           )
           select notification_id as "notification_id!: _", lease as "lease!", user_id as "user_id!: _", kind as "kind!: _",
             channel as "channel!: _", event as "event!", attempts as "attempts!", unknown_outcomes as "unknown_outcomes!",
             (least(to_timestamp(('x' || left(replace(subject_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0), occurred_at)
               at time zone $10)::date as "ordered_on!",
             (occurred_at at time zone $10)::date as "happened_on!",
             wanted_at as "wanted_at!", wanted_at > created_at as "is_resent!",
             exists (select from unwanted where unwanted.user_id = claimed.user_id and unwanted.kind = claimed.kind
               and unwanted.channel = claimed.channel) as "is_unwanted!",
             row_number() over (partition by user_id, kind = any($9) order by notification_id)
               + (select count(*) from (select from notification as other
                    where other.user_id = claimed.user_id and other.delivered_at > $6 and other.kind = any($9)
                    limit $7) as recent)
               + (select count(*) from (select from notification as other
                    where other.user_id = claimed.user_id and other.lease is not null and other.due_at > $2
                      and other.kind = any($9) limit $7) as others) as "rank!",
             (select other.delivered_at from notification as other
                where other.user_id = claimed.user_id and other.delivered_at > $6 and other.kind = any($9)
                order by other.delivered_at desc offset greatest($7 - 1, 0) limit 1) as full_since
           from claimed"#,
        channel.name(),
        now,
        most,
        Uuid::now_v7(),
        now + service.lease,
        now - HOUR,
        service.per_hour.unwrap_or(0),
        &Kind::names(|_| true) as &[&str],
        &Kind::names(Kind::is_of_order) as &[&str],
        service.time_zone.name(),
    );
    Ok(claimed.fetch_all(&service.db).await?)
}
