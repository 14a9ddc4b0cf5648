//! Records outcomes of attempts, and ends their leases. A worker whose lease has ended changes nothing.

use std::sync::Arc;
use std::time::Duration;

use chassis::{Backoff, Unexpected};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::claim::Claimed;
use crate::kind::State;
use crate::outcome::{Outcome, RetryReason};
use crate::service::Service;

/// The rows of a set that have outcomes of one shape.
#[derive(Default)]
struct Rows {
    ids: Vec<Uuid>,
    leases: Vec<Uuid>,
    states: Vec<&'static str>,
    errors: Vec<String>,
    due: Vec<Option<OffsetDateTime>>,
    not_attempted: Vec<i32>,
    unknown: Vec<i32>,
    refused: Vec<bool>,
}

impl Rows {
    fn add(&mut self, service: &Service, claimed: &Claimed, outcome: &Outcome) {
        let (state, error, due) = match outcome {
            Outcome::Ended(state, why) => (*state, why.clone(), None),
            Outcome::AddressRefused(why) => (State::Refused, why.clone(), None),
            Outcome::Retry(reason, why) => {
                let wait = reason.wait(claimed.attempts.unsigned_abs(), claimed.unknown_outcomes.unsigned_abs() + 1);
                (State::Pending, why.clone(), Some(service.clock.now() + wait))
            }
            Outcome::Limited(until) => (State::Pending, String::new(), Some(*until)),
        };
        self.ids.push(claimed.notification_id.0);
        self.leases.push(claimed.lease);
        self.states.push(state.name());
        self.errors.push(error);
        self.due.push(due);
        self.not_attempted.push(matches!(outcome, Outcome::Limited(_)).into());
        self.unknown.push(matches!(outcome, Outcome::Retry(RetryReason::OutcomeUnknown, _)).into());
        self.refused.push(matches!(outcome, Outcome::AddressRefused(_)));
    }
}

pub(crate) async fn record(service: &Service, outcomes: &[(Arc<Claimed>, Outcome)]) -> Result<(), Unexpected> {
    let mut rows = Rows::default();
    outcomes.iter().for_each(|(claimed, outcome)| rows.add(service, claimed, outcome));
    sqlx::query!(
        "update notification set state = ended.state, error = ended.error, due_at = ended.due_at, lease = null,
           attempts = attempts - not_attempted, unknown_outcomes = unknown_outcomes + unknown,
           refusal_unreported = refusal_unreported or is_refusal,
           delivered_at = case when ended.state = 'DELIVERED' then $9 else delivered_at end,
           refused_at = case when is_refusal then $9 else refused_at end
         from (select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[],
             $7::integer[], $8::boolean[]) limit cardinality($1))
           as ended (id, held, state, error, due_at, not_attempted, unknown, is_refusal)
         where notification_id = id and lease = held",
        &rows.ids,
        &rows.leases,
        &rows.states as &[&str],
        &rows.errors,
        &rows.due as &[Option<OffsetDateTime>],
        &rows.not_attempted,
        &rows.unknown,
        &rows.refused,
        service.clock.now(),
    )
    .execute(&service.db)
    .await?;
    if outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::AddressRefused(_))) {
        service.refusals.wake();
    }
    Ok(())
}

/// Records outcomes that could not be recorded at first, until the lease is over and others attempt what they are of.
pub(crate) async fn record_until(
    service: &Service,
    lease_end: Instant,
    outcomes: &[(Arc<Claimed>, Outcome)],
) -> Result<(), Unexpected> {
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    for failures in 1.. {
        match record(service, outcomes).await {
            Err(error) if Instant::now() < lease_end => {
                tracing::warn!(count = outcomes.len(), %error, "outcomes of notifications are recorded again later");
                sleep(backoff.after(failures)).await;
            }
            recorded => return recorded,
        }
    }
    unreachable!("it does not end")
}
