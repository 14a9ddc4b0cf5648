//! The step that drives payments to their goals: take one that is due, write down what begins, call, write down how it
//! ended. What is unknown stays as it is, and the provider is asked when it is due again.

mod authorize;
mod capture;
mod look_up;
mod refund;
mod void;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::Did;
use chassis::Unexpected;
use chassis::boot::metrics;
use contracts::souk::payment::v1::RefundReason;
use prometheus_client::metrics::gauge::Gauge;
use uuid::Uuid;

use crate::Service;
use crate::goal::{Action, State};
use crate::outcome::{OURSELVES, Outcome, Then, record};
use crate::payment::{Payment, Row};
use crate::refund::Refund;
use crate::stripe::{NoAnswer, Unknown, Unsent};

const SLOWEST_RETRY: Duration = Duration::from_secs(30);

pub(crate) static BEHIND: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register("payments_behind", "Payments that did not reach their goal within a minute", Gauge::default())
});

pub(crate) async fn drive(service: Arc<Service>) -> Result<Did, Unexpected> {
    if service.provider.budget.paused().is_some() {
        return Ok(Did::Nothing);
    }
    let Some((payment, action)) = claim(&service).await? else { return Ok(Did::Nothing) };
    // Somebody else may take the next one meanwhile.
    service.work.wake();
    match perform(&service, &payment, action).await {
        Ok(()) => {}
        Err(Stopped::Unknown(unknown)) => put_off(&service, &payment, &unknown.to_string(), None).await?,
        Err(Stopped::Unsent(unsent)) => put_off(&service, &payment, &unsent.to_string(), Some(&unsent)).await?,
        Err(Stopped::Unexpected(unexpected)) => {
            if let Unexpected::Broken(why) = &unexpected {
                put_off(&service, &payment, why, None).await?;
            }
            return Err(unexpected);
        }
    }
    Ok(Did::Something)
}

/// Why a payment was left where it is.
pub(crate) enum Stopped {
    Unknown(Unknown),
    Unsent(Unsent),
    Unexpected(Unexpected),
}

impl From<NoAnswer> for Stopped {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Unknown(unknown) => Self::Unknown(unknown),
            NoAnswer::Unsent(unsent) => Self::Unsent(unsent),
        }
    }
}

impl From<Unknown> for Stopped {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

impl From<Unexpected> for Stopped {
    fn from(unexpected: Unexpected) -> Self {
        Self::Unexpected(unexpected)
    }
}

/// Takes the payment that is due longest, and writes down what is about to happen to it.
pub(crate) async fn claim(service: &Service) -> Result<Option<(Payment, Action)>, Unexpected> {
    let now = service.clock.now();
    let mut tx = service.db.begin().await?;
    let row = sqlx::query_as!(
        Row,
        "with due as (
           select payment_id, unsent from payment
           where due_at <= $1 and (leased_until is null or leased_until < $1)
           order by due_at limit 1 for no key update skip locked)
         update payment set lease = $2, leased_until = $3, unsent = false from due
         where payment.payment_id = due.payment_id
         returning payment.payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
           captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, lease, call,
           due.unsent, refund_refusal, attempts, created_at, updated_at",
        now,
        Uuid::now_v7(),
        now + service.lease,
    );
    let Some(row) = row.fetch_optional(&mut *tx).await? else { return Ok(None) };
    let mut payment = row.into_payment()?;
    let (before, action) = (payment.state, payment.action());
    match action {
        Action::Authorize => payment.step_to(State::Authorizing)?,
        Action::Capture => payment.step_to(State::Capturing)?,
        Action::Void => payment.step_to(State::Voiding)?,
        Action::Refund if payment.keeps_too_much() => {
            let minor = payment.unrefunded();
            let why = (OURSELVES, RefundReason::OrderEnded);
            Refund::new(service, payment.payment_id, minor, why).insert(&mut tx).await?;
            payment.refund_pending_minor += minor;
        }
        Action::Refund | Action::LookUp | Action::Drop => {}
        Action::Nothing => {
            payment.save(&mut tx, before, None, None, now).await?;
            tx.commit().await?;
            return Ok(Some((payment, action)));
        }
    }
    payment.attempts += 1;
    let leased_until = now + service.lease;
    payment.save(&mut tx, before, Some(leased_until), Some(leased_until), now).await?;
    tx.commit().await?;
    Ok(Some((payment, action)))
}

pub(crate) async fn perform(service: &Service, payment: &Payment, action: Action) -> Result<(), Stopped> {
    match action {
        Action::Nothing => Ok(()),
        Action::Drop => finish(service, payment, Outcome::Voided).await,
        Action::Authorize => authorize::authorize(service, payment).await,
        Action::Capture => capture::capture(service, payment).await,
        Action::Void => void::void(service, payment).await,
        Action::Refund => refund::refund(service, payment).await,
        Action::LookUp => look_up::look_up(service, payment).await,
    }
}

async fn finish(service: &Service, payment: &Payment, outcome: Outcome) -> Result<(), Stopped> {
    record(service, payment, outcome, Then::LetGo).await?;
    Ok(())
}

/// The call that was under way never happened, or moved nothing: whatever the provider keeps under its key, the next one
/// has another. None: the lease is gone.
async fn renew(service: &Service, payment: &Payment) -> Result<Option<Payment>, Unexpected> {
    let call = sqlx::query_scalar!(
        "update payment set call = call + 1 where payment_id = $1 and lease = $2 returning call",
        payment.payment_id,
        payment.lease,
    );
    Ok(call.fetch_optional(&service.db).await?.map(|call| Payment { call, ..payment.clone() }))
}

pub(crate) fn intent_of(payment: &Payment) -> Result<&str, Stopped> {
    payment.intent_id.as_deref().ok_or_else(|| broken(payment, "its intent is not known"))
}

pub(crate) fn broken(payment: &Payment, why: &str) -> Stopped {
    Stopped::Unexpected(Unexpected::Broken(format!("payment {}: {why}", payment.payment_id)))
}

/// Gives the lease back and looks again later, sooner at first.
async fn put_off(service: &Service, payment: &Payment, why: &str, unsent: Option<&Unsent>) -> Result<(), Unexpected> {
    let exponent = payment.attempts.clamp(1, 10).unsigned_abs();
    let rest = SLOWEST_RETRY.min(Duration::from_millis(50 << exponent)).mul_f64(rand::random_range(0.8..1.2));
    // What waits for all is no attempt of its own, and comes back over a second, not all at once.
    let common = unsent.and_then(|it| it.rest);
    let rest = common.map_or(rest, |common| common + Duration::from_secs(1).mul_f64(rand::random()));
    match common {
        None => {
            tracing::warn!(payment_id = %payment.payment_id, state = payment.state.name(), why, ?rest, "it is asked again")
        }
        Some(_) => tracing::debug!(payment_id = %payment.payment_id, why, ?rest, "it waits for the provider's limits"),
    }
    sqlx::query!(
        "update payment set lease = null, leased_until = null, due_at = $3, unsent = $4, attempts = attempts - $5
         where payment_id = $1 and lease = $2",
        payment.payment_id,
        payment.lease,
        service.clock.now() + rest,
        unsent.is_some_and(|it| it.writes),
        i32::from(common.is_some() && payment.attempts > 0),
    )
    .execute(&service.db)
    .await?;
    Ok(())
}

pub(crate) async fn measure_behind(service: Arc<Service>) -> Result<Did, Unexpected> {
    let count = count_behind(&service).await?;
    if BEHIND.set(count) != count {
        tracing::warn!(count, "the number of payments that are behind changed");
    }
    Ok(Did::Nothing)
}

/// Refunds that the provider has taken may be under way for days: that is not our delay.
pub(crate) async fn count_behind(service: &Service) -> Result<i64, Unexpected> {
    let since = service.clock.now() - Duration::from_secs(60);
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from payment where due_at is not null and wanted_at < $1
             and (state <> 'CAPTURED' or refund_pending_minor = 0 or exists (
               select from refund where refund.payment_id = payment.payment_id
                 and refund.state = 'PENDING' and refund.reference is null))"#,
        since,
    );
    Ok(count.fetch_one(&service.db).await?)
}
