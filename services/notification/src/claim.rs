//! Leases: only the worker that claimed a notification delivers it, until the lease ends. Claims and outcomes are statements for a
//! set of notifications, each its own transaction.

use std::time::Duration;

use chassis::{Backoff, Unexpected};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::deliver::{Outcome, Patience};
use crate::ids::{NotificationId, UserId};
use crate::kind::{Channel, Kind, State};
use crate::service::Service;

const HOUR: Duration = Duration::from_secs(3_600);
/// When a notification beyond the limit of its user is looked at again.
const LIMITED_FOR: Duration = Duration::from_secs(60);

/// A notification with a lease on it.
pub(crate) struct Claimed {
    pub(crate) notification_id: NotificationId,
    pub(crate) lease: Uuid,
    pub(crate) user_id: UserId,
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    pub(crate) event: Vec<u8>,
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) attempts: i32,
    pub(crate) wanted_at: OffsetDateTime,
    /// Whether an operator requested this delivery.
    pub(crate) is_resent: bool,
    /// Whether its user does not want it.
    pub(crate) is_unwanted: bool,
    /// Which of its user it is: after those that were delivered within an hour, and those that others deliver now.
    pub(crate) rank: i64,
}

/// Claims the notifications that are due for longest, and records the attempts. If the process is killed, they are due again when
/// the lease ends.
pub(crate) async fn claim(service: &Service, channel: Channel, most: i64) -> Result<Vec<Claimed>, Unexpected> {
    let now = service.clock.now();
    let claimed = sqlx::query_as!(
        Claimed,
        r#"with due as (
             select notification_id from notification where channel = $1 and due_at <= $2
             order by due_at limit $3 for no key update skip locked
           ), claimed as (
             update notification set lease = $4, due_at = $5, attempts = attempts + 1
             from due where notification.notification_id = due.notification_id
             returning notification.*
           )
           select notification_id as "notification_id!: _", lease as "lease!", user_id as "user_id!: _", kind as "kind!: _",
             channel as "channel!: _", event as "event!", occurred_at as "occurred_at!", attempts as "attempts!",
             wanted_at as "wanted_at!", wanted_at > created_at as "is_resent!",
             exists (select from unwanted where unwanted.user_id = claimed.user_id and unwanted.kind = claimed.kind
               and unwanted.channel = claimed.channel) as "is_unwanted!",
             row_number() over (partition by user_id order by notification_id)
               + (select count(*) from (select from notification as other
                    where other.user_id = claimed.user_id and other.delivered_at > $6 limit $7) as recent)
               + (select count(*) from (select from notification as other
                    where other.user_id = claimed.user_id and other.lease is not null and other.due_at > $2
                    limit $7) as others) as "rank!"
           from claimed"#,
        channel.name(),
        now,
        most,
        Uuid::now_v7(),
        now + service.lease,
        now - HOUR,
        service.per_hour.unwrap_or(0),
    );
    Ok(claimed.fetch_all(&service.db).await?)
}

/// The rows of a set that have outcomes of one shape.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    leases: Vec<Uuid>,
    states: Vec<&'static str>,
    errors: Vec<String>,
    due: Vec<Option<OffsetDateTime>>,
    not_attempted: Vec<i32>,
    refused: Vec<bool>,
}

impl Rows {
    fn add(&mut self, service: &Service, claimed: &Claimed, outcome: &Outcome) {
        let after = |wait: Duration| Some(service.clock.now() + wait);
        let (state, error, due, not_attempted) = match outcome {
            Outcome::Ended(state, why) => (*state, why.clone(), None, 0),
            Outcome::AddressRefused(why) => (State::Refused, why.clone(), None, 0),
            Outcome::Retry(patience, why) => {
                (State::Pending, why.clone(), after(backoff(*patience).after(claimed.attempts.unsigned_abs())), 0)
            }
            Outcome::Limited => (State::Pending, String::new(), after(LIMITED_FOR), 1),
        };
        self.ids.push(claimed.notification_id.0);
        self.leases.push(claimed.lease);
        self.states.push(state.name());
        self.errors.push(error);
        self.due.push(due);
        self.not_attempted.push(not_attempted);
        self.refused.push(matches!(outcome, Outcome::AddressRefused(_)));
    }
}

fn backoff(patience: Patience) -> Backoff {
    match patience {
        // Short, so that all waiting mails are delivered soon after the server is back.
        Patience::ForServer => Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
        Patience::ForRecipient => Backoff::new(Duration::from_secs(30), Duration::from_secs(900)),
    }
}

/// Records outcomes of attempts, and ends their leases. A worker whose lease has ended changes nothing.
pub(crate) async fn record(service: &Service, outcomes: &[(Claimed, Outcome)]) -> Result<(), Unexpected> {
    let mut rows = Rows::default();
    outcomes.iter().for_each(|(claimed, outcome)| rows.add(service, claimed, outcome));
    sqlx::query!(
        "update notification set state = ended.state, error = ended.error, due_at = ended.due_at, lease = null,
           attempts = attempts - not_attempted, refusal_unreported = refusal_unreported or is_refusal,
           delivered_at = case when ended.state = 'DELIVERED' then $8 else delivered_at end,
           refused_at = case when is_refusal then $8 else refused_at end
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::boolean[])
           as ended (id, held, state, error, due_at, not_attempted, is_refusal)
         where notification_id = id and lease = held",
        &rows.ids,
        &rows.leases,
        &rows.states as &[&str],
        &rows.errors,
        &rows.due as &[Option<OffsetDateTime>],
        &rows.not_attempted,
        &rows.refused,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    Ok(())
}
