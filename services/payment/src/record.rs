//! Records a fact about a payment: its row, its history, the ledger, its refund and the event, together or not at all.

use std::sync::LazyLock;

use chassis::Unexpected;
use chassis::boot::db::column;
use chassis::boot::{metrics, telemetry};
use contracts::event::Event as _;
use contracts::souk::payment::v1::PaymentEvent;
use contracts::souk::payment::v1::payment_event::Event;
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::changes::{Changes, Fact, OURSELVES};
use crate::claim::Claimed;
use crate::conclude::Then;
use crate::decide::CallStatus;
use crate::payment::{COMPARE_AFTER, Payment};
use crate::refund::Refund;
use crate::service::Service;

/// How often the goal or the refunds may change while one fact is recorded.
const MAX_CHANGES: usize = 10;

static FAILED: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Refunds that the provider refused, or that failed after they had succeeded";
    metrics::register("payment_refunds_failed", help, Counter::default())
});

static GIVEN_UP: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Refunds of ended orders that the provider refuses for good, for operators to look at";
    metrics::register("payment_refunds_given_up", help, Counter::default())
});

/// Records a fact about a payment, if the lease on it is still ours. The payment with its lease if that was kept.
pub(crate) async fn record(
    service: &Service,
    claimed: &Claimed,
    fact: &Fact,
    then: Then,
) -> Result<Option<Claimed>, Unexpected> {
    let mut claimed = claimed.clone();
    for _ in 0..MAX_CHANGES {
        let changes = Changes::of(&service.clock, &claimed, fact, then)?;
        if write(service, &claimed.payment, &changes).await? {
            wake_and_report(service, &claimed.payment, &changes, fact);
            return Ok(match then {
                Then::Call(call) => Some(claimed.after(changes, call)),
                Then::EndLease | Then::EndLeaseUntil(_) => None,
            });
        }
        let Some(fresh) = claimed.reload(service).await? else {
            let payment_id = claimed.payment.payment_id;
            tracing::warn!(%payment_id, ?fact, "the lease was lost to another worker, which reads the outcome from the provider");
            return Ok(None);
        };
        claimed = fresh;
    }
    Err(Unexpected::Broken("it changes too often to record a fact".to_owned()))
}

impl Claimed {
    fn after(self, changes: Changes, call: CallStatus) -> Self {
        let changed = changes.refund.map(|change| change.refund);
        let (refund, next_refund_at) = match (self.refund, changed) {
            // A new refund waits for the current one.
            (Some(ours), Some(new)) if ours.refund_id != new.refund_id => {
                let next = self.next_refund_at.map_or(new.due_at(), |next| next.min(new.due_at()));
                (Some(ours), Some(next))
            }
            (ours, changed) => (changed.or(ours), self.next_refund_at),
        };
        Self { payment: changes.payment, call, refund, next_refund_at, ..self }
    }
}

async fn write(service: &Service, before: &Payment, changes: &Changes) -> Result<bool, Unexpected> {
    let Some(change) = &changes.refund else { return write_payment(service, &service.db, before, changes).await };
    let mut tx = service.db.begin().await?;
    if !write_payment(service, &mut *tx, before, changes).await? {
        return Ok(false);
    }
    match change.before {
        None => change.refund.insert(&mut tx).await?,
        Some(before) => change.refund.update(&mut tx, before).await?,
    }
    tx.commit().await?;
    Ok(true)
}

/// Returns whether it was written: the lease is still ours, and the goal and the reserved refunds did not change meanwhile.
async fn write_payment(
    service: &Service,
    db: impl PgExecutor<'_>,
    before: &Payment,
    changes: &Changes,
) -> Result<bool, Unexpected> {
    let (payment, transfers, now) = (&changes.payment, &changes.transfers, changes.now);
    let leased_until = (!changes.ends_lease).then(|| now + service.lease);
    let check_at = if changes.compare_now { OffsetDateTime::UNIX_EPOCH } else { now + COMPARE_AFTER };
    let event =
        changes.event.as_ref().map(|event| (service.clock.new_id(), event.event_type(), payload(payment, event)));
    // The order's event did not cause a refund that an operator requested.
    let cause = Some(payment.cause_id).filter(|cause| *cause != Uuid::nil() && changes.actor == OURSELVES);
    let written = sqlx::query_scalar!(
        r#"with changed as (
             update payment set state = $5, intent_id = $6, captured_minor = $7, refunded_minor = $8,
               refund_pending_minor = $9, call = $10, failure_reason = $11, version = $12, refund_refusal = $13, due_at = $14,
               lease = case when $15::timestamptz is null then null else lease end, leased_until = $15, attempts = $32,
               updated_at = $16, check_at = least(check_at, $17)
             where payment_id = $1 and lease = $2 and goal = $3 and refund_pending_minor = $4
             returning payment_id
           ), history as (
             insert into payment_history (payment_id, state, at) select payment_id, $5, $16 from changed where $18
           ), moved as (
             insert into ledger_transfer
               (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
             select payment_id, kind, debit, credit, $19, minor, reference, $16
             from changed, unnest($20::text[], $21::text[], $22::text[], $23::bigint[], $24::text[]) with ordinality
               as transfer (kind, debit, credit, minor, reference, place)
             order by place
           ), published as (
             insert into outbox
               (event_id, topic, key, version, type, payload, actor, causation_id, traceparent, created_at)
             select $25, $26, payment_id, $12, $27, $28, $29, $30, $31, $16
             from changed where $25::uuid is not null
           )
           select count(*) = 1 as "written!" from changed"#,
        payment.payment_id.0,
        before.lease,
        before.goal.name(),
        before.refund_pending_minor,
        payment.state.name(),
        payment.intent_id,
        payment.captured_minor,
        payment.refunded_minor,
        payment.refund_pending_minor,
        payment.call,
        payment.failure_reason,
        payment.version,
        payment.refund_refusal,
        changes.due_at,
        leased_until,
        now,
        check_at,
        before.state != payment.state,
        payment.currency,
        &column(transfers, |transfer| transfer.kind) as &[&str],
        &column(transfers, |transfer| transfer.debit.as_str()) as &[&str],
        &column(transfers, |transfer| transfer.credit.as_str()) as &[&str],
        &column(transfers, |transfer| transfer.minor),
        &column(transfers, |transfer| transfer.reference.as_str()) as &[&str],
        event.as_ref().map(|(event_id, ..)| *event_id),
        Event::TOPIC,
        event.as_ref().map(|(_, event_type, _)| *event_type),
        event.as_ref().map(|(.., payload)| payload.as_slice()),
        changes.actor,
        cause,
        telemetry::traceparent(),
        payment.attempts,
    );
    Ok(written.fetch_one(db).await?)
}

fn payload(payment: &Payment, event: &Event) -> Vec<u8> {
    let (payment_id, order_id) = (payment.payment_id.to_string(), payment.order_id.to_string());
    PaymentEvent { payment_id, order_id, event: Some(event.clone()) }.encode_to_vec()
}

/// After the commit: wakes the relay and the jobs that have work now, and reports failed refunds to operators.
fn wake_and_report(service: &Service, before: &Payment, changes: &Changes, fact: &Fact) {
    if changes.event.is_some() {
        service.published.wake();
    }
    if changes.ends_lease && changes.due_at.is_some() {
        service.work.wake();
    }
    if changes.compare_now {
        service.comparisons.wake();
    }
    let payment_id = before.payment_id;
    let (refund, why) = match (fact, &changes.refund) {
        (Fact::RefundFailed { .. }, Some(change)) => (&change.refund, "a refund failed"),
        (Fact::RefundReversed { .. }, Some(change)) => (&change.refund, "a refund failed after it had succeeded"),
        _ => return,
    };
    FAILED.inc();
    let Refund { refund_id, failure_reason: code, .. } = refund;
    tracing::error!(%payment_id, %refund_id, code, "{why}");
    if !changes.payment.refund_refusal.is_empty() {
        GIVEN_UP.inc();
        let reason = &changes.payment.refund_refusal;
        tracing::error!(%payment_id, reason, "the provider refuses for good to refund this payment");
    }
}
