//! What became of a refund, written down: its row, what is reserved and given back of its payment, the ledger, the event.

use std::sync::LazyLock;

use chassis::Unexpected;
use chassis::boot::metrics;
use contracts::souk::payment::v1::payment_event::Event as Kind;
use contracts::souk::payment::v1::{PaymentRefundFailed, PaymentRefunded, RefundReason};
use prometheus_client::metrics::counter::Counter;
use sqlx::PgConnection;

use super::{publish_as, transfer};
use crate::Service;
use crate::goal::Goal;
use crate::payment::Payment;
use crate::refund::Refund;

/// The actor of what happened at the provider without our asking.
const PROVIDER: &str = "provider";
/// How often an order that ended asks for what the provider does not give back.
const MOST_TRIES: i64 = 10;

static FAILED: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Refunds that the provider refused, or that failed after they were done";
    metrics::register("payment_refunds_failed", help, Counter::default())
});

static GIVEN_UP: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Refunds of ended orders that the provider refuses for good, for operators to look at";
    metrics::register("payment_refunds_given_up", help, Counter::default())
});

pub(super) async fn done(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    refund: &Refund,
    reference: &str,
) -> Result<(), Unexpected> {
    payment.refund_pending_minor -= refund.minor;
    settle(service, tx, refund, ("DONE", Some(reference), "")).await?;
    book(service, tx, payment, refund, reference).await
}

pub(super) async fn under_way(
    service: &Service,
    tx: &mut PgConnection,
    refund: &Refund,
    reference: &str,
) -> Result<(), Unexpected> {
    settle(service, tx, refund, ("PENDING", Some(reference), "")).await
}

pub(super) async fn done_elsewhere(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    reference: &str,
    minor: i64,
) -> Result<(), Unexpected> {
    let mut refund = Refund::new(service, payment.payment_id, minor, (PROVIDER, RefundReason::AtProvider));
    (refund.state, refund.reference) = ("DONE".to_owned(), Some(reference.to_owned()));
    refund.insert(tx).await?;
    book(service, tx, payment, &refund, reference).await
}

/// What was reserved is free again.
pub(super) async fn failed(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    refund: &Refund,
    why: &str,
) -> Result<(), Unexpected> {
    let code = code(why);
    payment.refund_pending_minor -= refund.minor;
    tracing::error!(payment_id = %payment.payment_id, refund_id = %refund.refund_id, code, "a refund failed");
    fail(service, tx, payment, refund, &code).await
}

/// What had gone back is ours again, and can be given back once more.
pub(super) async fn reversed(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    refund: &Refund,
    why: &str,
) -> Result<(), Unexpected> {
    let (customer, minor, code) = (format!("customer:{}", payment.user_id), refund.minor, code(why));
    payment.refunded_minor -= minor;
    tracing::error!(payment_id = %payment.payment_id, refund_id = %refund.refund_id, code, "a refund that was done failed");
    fail(service, tx, payment, refund, &code).await?;
    let reference = refund.reference.as_deref().unwrap_or_default();
    transfer(service, tx, payment, "REFUND_REVERSAL", (&customer, "revenue"), minor, reference).await?;
    let (amount, refund_id) = (Some(payment.money(minor)), refund.refund_id.to_string());
    let kind = Kind::PaymentRefundFailed(PaymentRefundFailed { amount, refund_id, reason: code });
    publish_as(service, tx, payment, PROVIDER, kind).await
}

/// What is stored and told of the provider's word: a code, and no more than that.
fn code(why: &str) -> String {
    why.chars().filter(char::is_ascii_graphic).take(100).collect()
}

/// Before its order ended, a refund is an operator's, who sees what came of it. Afterwards it is asked for again, unless that
/// is of no use.
async fn fail(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    refund: &Refund,
    code: &str,
) -> Result<(), Unexpected> {
    FAILED.inc();
    settle(service, tx, refund, ("FAILED", refund.reference.as_deref(), code)).await?;
    payment.refund_refusal.clear();
    if payment.goal != Goal::Released {
        return Ok(());
    }
    let refusal = match code {
        "charge_disputed" | "refund_disputed_payment" | "charge_for_pending_refund_disputed" => "DISPUTED",
        "charge_already_refunded" => "ALREADY_REFUNDED",
        "expired_or_canceled_card" | "lost_or_stolen_card" => "CARD_CLOSED",
        _ if count_failed(tx, payment).await? >= MOST_TRIES => "REFUSED_AGAIN_AND_AGAIN",
        _ => return Ok(()),
    };
    payment.refund_refusal = refusal.to_owned();
    GIVEN_UP.inc();
    tracing::error!(payment_id = %payment.payment_id, reason = refusal, "the provider does not give this back");
    Ok(())
}

async fn count_failed(tx: &mut PgConnection, payment: &Payment) -> Result<i64, Unexpected> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from refund where payment_id = $1 and state = 'FAILED' and reason = 'ORDER_ENDED'"#,
        payment.payment_id,
    );
    Ok(count.fetch_one(tx).await?)
}

/// Writes down how a refund stands now: its state, the provider's name for it, and why it failed.
async fn settle(
    service: &Service,
    tx: &mut PgConnection,
    refund: &Refund,
    (state, reference, why): (&str, Option<&str>, &str),
) -> Result<(), Unexpected> {
    let changed = sqlx::query!(
        "update refund set state = $2, reference = $3, failure_reason = $4, updated_at = $5
         where refund_id = $1 and state = $6",
        refund.refund_id,
        state,
        reference,
        why,
        service.clock.now(),
        refund.state,
    );
    match changed.execute(tx).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(Unexpected::Broken(format!("refund {} is not {} any more", refund.refund_id, refund.state))),
    }
}

async fn book(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    refund: &Refund,
    reference: &str,
) -> Result<(), Unexpected> {
    let (customer, minor) = (format!("customer:{}", payment.user_id), refund.minor);
    payment.refunded_minor += minor;
    payment.refund_refusal.clear();
    transfer(service, tx, payment, "REFUND", ("revenue", &customer), minor, reference).await?;
    let refund_id = refund.refund_id.to_string();
    let kind = Kind::PaymentRefunded(PaymentRefunded { amount: Some(payment.money(minor)), refund_id });
    publish_as(service, tx, payment, &refund.actor, kind).await
}
