//! How a call ended, written down: state, ledger, and the event that tells others, in one transaction.

mod refund;

use std::time::Duration;

use chassis::Unexpected;
use chassis::event::outbox::{self, Event};
use contracts::event::Event as _;
use contracts::souk::payment::v1::payment_event::Event as Kind;
use contracts::souk::payment::v1::*;
use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Service;
use crate::goal::{Action, Goal, State};
use crate::payment::Payment;
use crate::refund::Refund;

/// Who acts where nobody asked.
pub(crate) const OURSELVES: &str = "service:payment";

/// What is known now that was not known before.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The intent exists; nothing moved.
    Created {
        intent_id: String,
    },
    Authorized,
    Declined {
        reason: &'static str,
    },
    Captured {
        minor: i64,
    },
    CaptureFailed {
        reason: &'static str,
    },
    /// What was held went back; or nothing ever was.
    Voided,
    /// The amount was held and let go before anybody saw that.
    CameAndWent,
    Refunded {
        refund: Box<Refund>,
        reference: String,
    },
    /// The provider knows of the refund, and has not given anything back yet.
    RefundUnderWay {
        refund: Box<Refund>,
        reference: String,
    },
    RefundFailed {
        refund: Box<Refund>,
        why: String,
    },
    /// A refund that was done has failed since: the money is ours again.
    RefundReversed {
        refund: Box<Refund>,
        why: String,
    },
    /// Somebody gave money back at the provider itself.
    RefundedElsewhere {
        reference: String,
        minor: i64,
    },
}

/// What follows a recorded outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The same worker goes on with the same lease.
    GoOn,
    /// The lease is given back; the payment is due again if its goal is not reached.
    LetGo,
    /// The same, and what the provider was just asked about is left alone for so long.
    Rest(Duration),
}

/// Writes an outcome down, if the lease is still ours. None: it is not, and whoever has it finds out for itself.
pub(crate) async fn record(
    service: &Service,
    payment: &Payment,
    outcome: Outcome,
    then: Then,
) -> Result<Option<Payment>, Unexpected> {
    let mut tx = service.db.begin().await?;
    let Some(mut payment) =
        Payment::lock(&mut tx, payment.payment_id).await?.filter(|found| found.lease == payment.lease)
    else {
        tracing::warn!(payment_id = %payment.payment_id, ?outcome, "the lease is gone; the provider will be asked again");
        return Ok(None);
    };
    let (before, now) = (payment.state, service.clock.now());
    apply(service, &mut tx, &mut payment, outcome).await?;
    payment.attempts = 0;
    let (due_at, leased_until) = match then {
        Then::GoOn => (Some(now), Some(now + service.lease)),
        Then::LetGo => ((payment.action() != Action::Nothing).then_some(now), None),
        Then::Rest(rest) => ((payment.action() != Action::Nothing).then_some(now + rest), None),
    };
    payment.save(&mut tx, before, due_at, leased_until, now).await?;
    tx.commit().await?;
    service.published.wake();
    if due_at.is_some() {
        service.work.wake();
    }
    Ok(Some(payment))
}

async fn apply(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    outcome: Outcome,
) -> Result<(), Unexpected> {
    let amount = payment.amount_minor;
    let intent = payment.intent_id.clone().unwrap_or_default();
    let customer = format!("customer:{}", payment.user_id);
    match outcome {
        Outcome::Created { intent_id } => {
            payment.intent_id = Some(intent_id);
            Ok(())
        }
        Outcome::Authorized => {
            payment.step_to(State::Authorized)?;
            transfer(service, tx, payment, "AUTHORIZATION", (&customer, "held"), amount, &intent).await?;
            let kind = Kind::PaymentAuthorized(PaymentAuthorized { amount: Some(payment.money(amount)) });
            publish(service, tx, payment, kind).await
        }
        Outcome::Declined { reason } => decline(service, tx, payment, reason).await,
        Outcome::Captured { minor } => {
            payment.step_to(State::Captured)?;
            payment.captured_minor = minor;
            transfer(service, tx, payment, "CAPTURE", ("held", "revenue"), minor, &intent).await?;
            // Somebody captured a part at the provider itself, which let go of the rest.
            if minor < amount {
                transfer(service, tx, payment, "VOID", ("held", &customer), amount - minor, &intent).await?;
            }
            let kind = Kind::PaymentCaptured(PaymentCaptured { amount: Some(payment.money(minor)) });
            publish(service, tx, payment, kind).await
        }
        Outcome::CaptureFailed { reason } => {
            payment.step_to(State::Failed)?;
            payment.failure_reason = reason.to_owned();
            // The provider lets go of what it does not capture.
            transfer(service, tx, payment, "VOID", ("held", &customer), amount, &intent).await?;
            let kind = Kind::PaymentCaptureFailed(PaymentCaptureFailed { reason: reason.to_owned() });
            publish(service, tx, payment, kind).await
        }
        Outcome::Voided => {
            let held = matches!(payment.state, State::Voiding);
            payment.step_to(State::Voided)?;
            if !held {
                return Ok(());
            }
            transfer(service, tx, payment, "VOID", ("held", &customer), amount, &intent).await?;
            let kind = Kind::PaymentVoided(PaymentVoided { amount: Some(payment.money(amount)) });
            publish(service, tx, payment, kind).await
        }
        Outcome::CameAndWent => {
            transfer(service, tx, payment, "AUTHORIZATION", (&customer, "held"), amount, &intent).await?;
            transfer(service, tx, payment, "VOID", ("held", &customer), amount, &intent).await?;
            if payment.goal != Goal::Released {
                return decline(service, tx, payment, "PAYMENT_REFUSED").await;
            }
            payment.step_to(State::Voided)?;
            let kind = Kind::PaymentVoided(PaymentVoided { amount: Some(payment.money(amount)) });
            publish(service, tx, payment, kind).await
        }
        Outcome::Refunded { refund, reference } => refund::done(service, tx, payment, &refund, &reference).await,
        Outcome::RefundUnderWay { refund, reference } => refund::under_way(service, tx, &refund, &reference).await,
        Outcome::RefundFailed { refund, why } => refund::failed(service, tx, payment, &refund, &why).await,
        Outcome::RefundReversed { refund, why } => refund::reversed(service, tx, payment, &refund, &why).await,
        Outcome::RefundedElsewhere { reference, minor } => {
            refund::done_elsewhere(service, tx, payment, &reference, minor).await
        }
    }
}

async fn decline(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    reason: &str,
) -> Result<(), Unexpected> {
    payment.step_to(State::Declined)?;
    payment.failure_reason = reason.to_owned();
    let kind = Kind::PaymentDeclined(PaymentDeclined { reason: reason.to_owned() });
    publish(service, tx, payment, kind).await
}

async fn transfer(
    service: &Service,
    tx: &mut PgConnection,
    payment: &Payment,
    kind: &str,
    (debit, credit): (&str, &str),
    minor: i64,
    reference: &str,
) -> Result<(), Unexpected> {
    sqlx::query!(
        "insert into ledger_transfer
           (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        payment.payment_id,
        kind,
        debit,
        credit,
        payment.currency,
        minor,
        reference,
        service.clock.now(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn publish(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    kind: Kind,
) -> Result<(), Unexpected> {
    publish_as(service, tx, payment, OURSELVES, kind).await
}

async fn publish_as(
    service: &Service,
    tx: &mut PgConnection,
    payment: &mut Payment,
    actor: &str,
    kind: Kind,
) -> Result<(), Unexpected> {
    payment.version += 1;
    let event_type = kind.event_type();
    let payload = PaymentEvent {
        payment_id: payment.payment_id.to_string(),
        order_id: payment.order_id.to_string(),
        event: Some(kind),
    };
    let event = Event {
        event_id: service.clock.new_id(),
        topic: Kind::TOPIC,
        key: payment.payment_id,
        version: payment.version,
        event_type,
        payload: payload.encode_to_vec(),
        actor: actor.to_owned(),
        // What somebody asked for has its cause in them, not in the order.
        causation_id: Some(payment.cause_id).filter(|cause| *cause != Uuid::nil() && actor == OURSELVES),
        occurred_at: service.clock.now(),
    };
    Ok(outbox::append(tx, &event).await?)
}
