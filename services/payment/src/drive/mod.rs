//! The step that drives payments to their goals: take one that is due, write down what begins, call, write down how it
//! ended. What is unknown stays as it is, and the provider is asked when it is due again.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::Unexpected;
use chassis::metrics;
use chassis::step::Did;
use prometheus_client::metrics::gauge::Gauge;
use uuid::Uuid;

use crate::Service;
use crate::goal::{Action, Goal, State, next};
use crate::outcome::{Outcome, Then, record};
use crate::payment::{Payment, Row};
use crate::stripe::{Answer, Intent, Status, Unknown};

const SLOWEST_RETRY: Duration = Duration::from_secs(30);

pub(crate) static BEHIND: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register("payments_behind", "Payments that did not reach their goal within a minute", Gauge::default())
});

pub(crate) async fn drive(service: Arc<Service>) -> Result<Did, Unexpected> {
    let Some((payment, action)) = claim(&service).await? else { return Ok(Did::Nothing) };
    // Somebody else may take the next one meanwhile.
    service.work.wake();
    match perform(&service, &payment, action).await {
        Ok(()) => {}
        Err(Stopped::Unknown(unknown)) => put_off(&service, &payment, &unknown).await?,
        Err(Stopped::Unexpected(unexpected)) => return Err(unexpected),
    }
    Ok(Did::Something)
}

/// Why a payment was left where it is.
enum Stopped {
    Unknown(Unknown),
    Unexpected(Unexpected),
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
async fn claim(service: &Service) -> Result<Option<(Payment, Action)>, Unexpected> {
    let now = service.clock.now();
    let mut tx = service.db.begin().await?;
    let row = sqlx::query_as!(
        Row,
        "update payment set lease = $2, leased_until = $3 where payment_id =
           (select payment_id from payment
            where due_at <= $1 and (leased_until is null or leased_until < $1)
            order by due_at limit 1 for no key update skip locked)
         returning payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
           captured_minor, refunded_minor, refund_pending_minor, refund_count, failure_reason, version, cause_id, lease,
           attempts, created_at, updated_at",
        now,
        Uuid::now_v7(),
        now + service.lease,
    );
    let Some(row) = row.fetch_optional(&mut *tx).await? else { return Ok(None) };
    let mut payment = row.into_payment()?;
    let (before, action) = (payment.state, next(payment.goal, payment.state));
    match action {
        Action::Authorize => payment.step_to(State::Authorizing)?,
        Action::Capture => payment.step_to(State::Capturing)?,
        Action::Void => payment.step_to(State::Voiding)?,
        Action::Refund if payment.refund_pending_minor == 0 => {
            payment.refund_pending_minor = payment.captured_minor - payment.refunded_minor;
            payment.refund_count += 1;
        }
        Action::Refund | Action::LookUp | Action::Drop | Action::Nothing => {}
    }
    let nothing_left = action == Action::Refund && payment.refund_pending_minor == 0;
    if action == Action::Nothing || nothing_left {
        payment.save(&mut tx, before, None, None, now).await?;
        tx.commit().await?;
        return Ok(Some((payment, Action::Nothing)));
    }
    payment.attempts += 1;
    let leased_until = now + service.lease;
    payment.save(&mut tx, before, Some(leased_until), Some(leased_until), now).await?;
    tx.commit().await?;
    Ok(Some((payment, action)))
}

async fn perform(service: &Service, payment: &Payment, action: Action) -> Result<(), Stopped> {
    match action {
        Action::Nothing => Ok(()),
        Action::Drop => finish(service, payment, Outcome::Voided).await,
        Action::Authorize => authorize(service, payment).await,
        Action::Capture => capture(service, payment).await,
        Action::Void => void(service, payment).await,
        Action::Refund => refund(service, payment).await,
        Action::LookUp => look_up(service, payment).await,
    }
}

async fn finish(service: &Service, payment: &Payment, outcome: Outcome) -> Result<(), Stopped> {
    record(service, payment, outcome, Then::LetGo).await?;
    Ok(())
}

/// Creates the intent, which may be repeated, remembers its name, and confirms it, which holds the money.
async fn authorize(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let (payment_id, order_id) = (payment.payment_id.to_string(), payment.order_id.to_string());
    let metadata = [("metadata[payment_id]", payment_id.as_str()), ("metadata[order_id]", order_id.as_str())];
    let (key, amount) = (format!("{payment_id}-create"), (payment.amount_minor, payment.currency.as_str()));
    let intent = match service.provider.create(&key, amount, &payment.payment_method, metadata).await? {
        Answer::Done(intent) | Answer::Elsewhere(intent) => intent,
        Answer::Declined(reason) => return finish(service, payment, Outcome::Declined { reason }).await,
    };
    let created = Outcome::Created { intent_id: intent.id.clone() };
    let Some(payment) = record(service, payment, created, Then::GoOn).await? else { return Ok(()) };
    match payment.goal {
        // The order ended meanwhile.
        Goal::Released => withdraw(service, &payment, &intent.id).await,
        Goal::Authorized | Goal::Captured => confirm(service, &payment, &intent.id).await,
    }
}

async fn confirm(service: &Service, payment: &Payment, intent_id: &str) -> Result<(), Stopped> {
    let answer = service.provider.confirm(&format!("{}-confirm", payment.payment_id), intent_id).await?;
    match answer {
        Answer::Declined(reason) => finish(service, payment, Outcome::Declined { reason }).await,
        Answer::Done(intent) | Answer::Elsewhere(intent) => conclude(service, payment, &intent).await,
    }
}

async fn capture(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let answer = service.provider.capture(&format!("{}-capture", payment.payment_id), intent_of(payment)?).await?;
    match answer {
        Answer::Declined(reason) => finish(service, payment, Outcome::CaptureFailed { reason }).await,
        Answer::Done(intent) | Answer::Elsewhere(intent) => conclude(service, payment, &intent).await,
    }
}

async fn void(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let answer = service.provider.cancel(&format!("{}-cancel", payment.payment_id), intent_of(payment)?).await?;
    match answer {
        Answer::Done(intent) | Answer::Elsewhere(intent) => conclude(service, payment, &intent).await,
        Answer::Declined(reason) => Err(broken(payment, &format!("a void was declined: {reason}"))),
    }
}

/// Under one key for each refund: a repeated call gives the first answer and moves nothing.
async fn refund(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let (key, minor) =
        (format!("{}-refund-{}", payment.payment_id, payment.refund_count), payment.refund_pending_minor);
    match service.provider.refund(&key, intent_of(payment)?, minor).await? {
        Answer::Done(refund) => finish(service, payment, Outcome::Refunded { refund_id: refund.id, minor }).await,
        Answer::Declined(reason) => Err(broken(payment, &format!("a refund was declined: {reason}"))),
        Answer::Elsewhere(intent) => {
            Err(broken(payment, &format!("a refund met an intent that is {:?}", intent.status)))
        }
    }
}

/// A call was begun and nobody knows how it ended: the provider does. What never happened is done now, under the same key,
/// or given up if it is not wanted any more.
async fn look_up(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let Some(intent_id) = payment.intent_id.as_deref() else {
        // Not even the intent is known, so nobody confirmed it. Creating it again finds the one that exists, or makes it.
        return match payment.goal {
            Goal::Released => finish(service, payment, Outcome::Voided).await,
            Goal::Authorized | Goal::Captured => authorize(service, payment).await,
        };
    };
    let intent = match service.provider.get(intent_id).await? {
        Answer::Done(intent) => intent,
        Answer::Declined(_) | Answer::Elsewhere(_) => return Err(broken(payment, "looking an intent up was refused")),
    };
    match judge(payment.state, &intent) {
        Some(Judgement::Ended(outcome)) => finish(service, payment, outcome).await,
        None => Err(odd(payment, &intent)),
        Some(Judgement::NeverHappened) => match (payment.state, payment.goal) {
            (State::Authorizing, Goal::Released) => withdraw(service, payment, intent_id).await,
            (State::Authorizing, _) => confirm(service, payment, intent_id).await,
            (State::Capturing, Goal::Released) => back_to_void(service, payment).await,
            (State::Capturing, _) => capture(service, payment).await,
            _ => void(service, payment).await,
        },
    }
}

/// What the provider's word about an intent means for a payment whose call was begun.
enum Judgement {
    Ended(Outcome),
    NeverHappened,
}

fn judge(state: State, intent: &Intent) -> Option<Judgement> {
    let reason = |otherwise| intent.last_payment_error.as_ref().map_or(otherwise, |failure| failure.reason());
    Some(Judgement::Ended(match (state, intent.status) {
        (State::Authorizing, Status::RequiresConfirmation)
        | (State::Capturing | State::Voiding, Status::RequiresCapture) => return Some(Judgement::NeverHappened),
        (State::Authorizing, Status::RequiresCapture) => Outcome::Authorized,
        (State::Authorizing, Status::RequiresAction) => Outcome::Declined { reason: "AUTHENTICATION_REQUIRED" },
        (State::Authorizing, Status::RequiresPaymentMethod) => Outcome::Declined { reason: reason("CARD_DECLINED") },
        (State::Authorizing | State::Voiding, Status::Canceled) => Outcome::Voided,
        (State::Capturing | State::Voiding, Status::Succeeded) => Outcome::Captured { minor: intent.amount_received },
        (State::Capturing, Status::Canceled) => Outcome::CaptureFailed { reason: reason("CAPTURE_REFUSED") },
        _ => return None,
    }))
}

/// Takes a call's own answer for what it says.
async fn conclude(service: &Service, payment: &Payment, intent: &Intent) -> Result<(), Stopped> {
    match judge(payment.state, intent) {
        Some(Judgement::Ended(outcome)) => finish(service, payment, outcome).await,
        Some(Judgement::NeverHappened) | None => Err(odd(payment, intent)),
    }
}

fn odd(payment: &Payment, intent: &Intent) -> Stopped {
    broken(payment, &format!("it is {}, and its intent {:?}", payment.state.name(), intent.status))
}

/// The confirmation never happened and is not wanted any more: the intent goes too.
async fn withdraw(service: &Service, payment: &Payment, intent_id: &str) -> Result<(), Stopped> {
    match service.provider.cancel(&format!("{}-cancel", payment.payment_id), intent_id).await? {
        Answer::Done(intent) | Answer::Elsewhere(intent) if intent.status == Status::Canceled => {
            finish(service, payment, Outcome::Voided).await
        }
        answer => Err(broken(payment, &format!("an intent was not withdrawn: {answer:?}"))),
    }
}

/// The capture never happened and is not wanted any more: what is held goes back.
async fn back_to_void(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let mut tx = service.db.begin().await.map_err(Unexpected::from)?;
    let found = Payment::lock(&mut tx, payment.payment_id).await?;
    let Some(mut found) = found.filter(|found| found.lease == payment.lease) else { return Ok(()) };
    let (before, now) = (found.state, service.clock.now());
    found.step_to(State::Voiding)?;
    found.save(&mut tx, before, Some(now), Some(now + service.lease), now).await?;
    tx.commit().await.map_err(Unexpected::from)?;
    void(service, &found).await
}

fn intent_of(payment: &Payment) -> Result<&str, Stopped> {
    payment.intent_id.as_deref().ok_or_else(|| broken(payment, "its intent is not known"))
}

fn broken(payment: &Payment, why: &str) -> Stopped {
    Stopped::Unexpected(Unexpected::Broken(format!("payment {}: {why}", payment.payment_id)))
}

/// Gives the lease back and looks again later, sooner at first.
async fn put_off(service: &Service, payment: &Payment, unknown: &Unknown) -> Result<(), Unexpected> {
    let exponent = payment.attempts.clamp(1, 10).unsigned_abs();
    let rest = SLOWEST_RETRY.min(Duration::from_millis(50 << exponent));
    let rest = rest.mul_f64(rand::random_range(0.8..1.2));
    tracing::warn!(payment_id = %payment.payment_id, state = payment.state.name(), %unknown, ?rest, "it is asked again");
    sqlx::query!(
        "update payment set lease = null, leased_until = null, due_at = $3 where payment_id = $1 and lease = $2",
        payment.payment_id,
        payment.lease,
        service.clock.now() + rest,
    )
    .execute(&service.db)
    .await?;
    Ok(())
}

pub(crate) async fn count_behind(service: Arc<Service>) -> Result<Did, Unexpected> {
    let since = service.clock.now() - Duration::from_secs(60);
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from payment where due_at is not null and wanted_at < $1"#,
        since,
    )
    .fetch_one(&service.db)
    .await?;
    if BEHIND.set(count) != count {
        tracing::warn!(count, "the number of payments that are behind changed");
    }
    Ok(Did::Nothing)
}
