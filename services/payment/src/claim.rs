//! Leases: only the worker that claimed a payment processes it, until the lease ends or expires.

use std::time::Duration;

use chassis::{Backoff, Unexpected};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::decide::{BEGINS, CallStatus};
use crate::payment::{COMPARE_AFTER, Payment, payments};
use crate::refund::Refund;
use crate::service::Service;
use crate::state::State;
use crate::stripe::NotSent;

const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A payment with a lease on it, and what is known of its call.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) payment: Payment,
    pub(crate) call: CallStatus,
    /// The pending refund that is processed.
    pub(crate) refund: Option<Refund>,
    /// When the first of the other pending refunds is due.
    pub(crate) next_refund_at: Option<OffsetDateTime>,
    /// How many of its ended order's refunds failed.
    pub(crate) failed_refunds: i64,
}

/// Claims the payment that is due for longest. If a call begins, the same statement records it. Whether others are due is asked
/// with an order too, as `exists` lets Postgres read the whole table for it.
pub(crate) async fn claim(service: &Service) -> Result<Option<Claimed>, Unexpected> {
    let now = service.clock.now();
    let payment = payments!(
        "with due as (
           select payment_id, goal, state, unsent from payment
           where due_at <= $1 and (leased_until is null or leased_until < $1)
           order by due_at limit 1 for no key update skip locked
         ), claimed as (
           update payment set lease = $2, leased_until = $3, due_at = $3, unsent = false, attempts = attempts + 1,
             state = coalesce(begins.next, payment.state), call = case when begins.next is null then call else 1 end,
             updated_at = $1, check_at = least(check_at, $4)
           from due left join unnest($5::text[], $6::text[], $7::text[]) as begins (goal, state, next)
             on begins.goal = due.goal and begins.state = due.state
           where payment.payment_id = due.payment_id
           returning payment.*, begins.next is not null as begins, due.unsent or begins.next is not null as not_sent
         ), history as (
           insert into payment_history (payment_id, state, at) select payment_id, state, $1 from claimed where begins
         )
         select" .. "not_sent" .. "coalesce((
             select true from payment as other
             where due_at <= $1 and (leased_until is null or leased_until < $1) and other.payment_id <> claimed.payment_id
             order by due_at limit 1), false)"
           .. "from claimed",
        now,
        Uuid::now_v7(),
        now + service.lease,
        now + COMPARE_AFTER,
        &BEGINS.map(|(goal, ..)| goal.name()) as &[&str],
        &BEGINS.map(|(_, state, _)| state.name()) as &[&str],
        &BEGINS.map(|(.., next)| next.name()) as &[&str],
    );
    match payment.fetch_optional(&service.db).await? {
        Some(payment) => Ok(Some(Claimed::load(service, payment).await?)),
        None => Ok(None),
    }
}

impl Claimed {
    pub(crate) async fn load(service: &Service, payment: Payment) -> Result<Self, Unexpected> {
        let call = if payment.not_sent { CallStatus::NotSent } else { CallStatus::Unknown };
        let claimed = Self { payment, call, refund: None, next_refund_at: None, failed_refunds: 0 };
        claimed.with_refunds(service).await
    }

    /// As it is now: its goal and its refunds may change under the lease. None: the lease is gone.
    pub(crate) async fn reload(&self, service: &Service) -> Result<Option<Self>, Unexpected> {
        match Payment::leased(&service.db, self.payment.payment_id, self.payment.lease).await? {
            Some(payment) => Ok(Some(Self { payment, ..self.clone() }.with_refunds(service).await?)),
            None => Ok(None),
        }
    }

    async fn with_refunds(mut self, service: &Service) -> Result<Self, Unexpected> {
        if self.payment.state != State::Captured {
            return Ok(self);
        }
        let payment_id = self.payment.payment_id;
        let pending = Refund::pending_of(&service.db, payment_id).await?;
        if self.refund.is_none() {
            self.refund = pending.first().cloned();
        }
        let current = self.refund.as_ref().map(|refund| refund.refund_id);
        self.next_refund_at = pending.iter().find(|other| Some(other.refund_id) != current).map(Refund::due_at);
        self.failed_refunds = Refund::count_failed(&service.db, payment_id).await?;
        Ok(self)
    }
}

/// Why a payment is processed again later.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) why: String,
    /// Whether the call was certainly not sent, or had no effect.
    pub(crate) not_sent: bool,
    /// How long all calls pause. None: only this payment waits, with a backoff.
    pub(crate) pause: Option<Duration>,
    /// Whether the next call needs another idempotency key.
    pub(crate) new_key: bool,
}

impl Retry {
    pub(crate) fn because(why: String) -> Self {
        Self { why, not_sent: false, pause: None, new_key: false }
    }
}

impl From<NotSent> for Retry {
    fn from(not_sent: NotSent) -> Self {
        Self { why: not_sent.to_string(), not_sent: not_sent.writes, pause: not_sent.pause, new_key: false }
    }
}

/// Ends the lease. The payment is due again after a backoff, or after the pause.
pub(crate) async fn retry_later(service: &Service, payment: &Payment, retry: &Retry) -> Result<(), Unexpected> {
    let backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF).after(payment.attempts.unsigned_abs());
    // Payments that wait for the pause to end are not attempted all at once, and it counts as no attempt of theirs.
    let wait = retry.pause.map_or(backoff, |pause| pause + Duration::from_secs(1).mul_f64(rand::random()));
    let (payment_id, state, why) = (payment.payment_id, payment.state.name(), &retry.why);
    match retry.pause {
        None => tracing::warn!(%payment_id, state, why, ?wait, "the payment is processed again later"),
        Some(_) => tracing::debug!(%payment_id, state, why, ?wait, "the payment waits for the provider's rate limits"),
    }
    sqlx::query!(
        "update payment set lease = null, leased_until = null, due_at = $3, unsent = $4, attempts = attempts - $5,
           call = call + $6
         where payment_id = $1 and lease = $2",
        payment_id.0,
        payment.lease,
        service.clock.now() + wait,
        retry.not_sent,
        i32::from(retry.pause.is_some() && payment.attempts > 0),
        i32::from(retry.new_key),
    )
    .execute(&service.db)
    .await?;
    Ok(())
}
