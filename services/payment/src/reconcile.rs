//! Payments at rest are compared with what the provider knows: at once where it reported something, and all of them once a
//! day, at a pace that all replicas share, for as long as something may still happen to them. Differences that are safe to
//! correct are corrected, all others are reported by a metric and a line in the log. What is under way asks the provider anyway, see
//! [`crate::drive`]; a payment that rests after a refused refund is compared too, for that may be what was refused.

mod compare;
mod lag;

use std::sync::{Arc, LazyLock};

use chassis::boot::metrics::{self, ByProblem};
use chassis::{Did, Unexpected};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::claim::Claimed;
use crate::conclude::Then;
use crate::ids::PaymentId;
use crate::payment::{CHECK_AFTER, Payment};
use crate::record::record;
use crate::refund::Refund;
use crate::service::Service;
use crate::state::State;
use crate::stripe::{Answer, CallError, Intent};
use compare::{Ledger, Theirs, Verdict, compare};
#[cfg(test)]
pub(crate) use lag::Lag;
pub(crate) use lag::measure_lag;

/// How long after its last change a payment is compared.
const CHANGES_WITHIN: Duration = Duration::days(30);
/// How long until a comparison that the provider did not answer is tried again.
const UNANSWERED: Duration = Duration::seconds(30);

static DIFFERENCES: LazyLock<Family<ByProblem, Gauge>> = LazyLock::new(|| {
    metrics::register(
        "payment_differences",
        "Payments of which the provider's record differs from ours, by what differs",
        Family::default(),
    )
});

/// A query of one column of payments at rest: what stands before the condition, what behind, and its parameters, the first of
/// which is the time. At rest is what is not due, unless it waits for a refund that the provider has not taken.
macro_rules! at_rest {
    ($head:tt .. $tail:tt, $($parameter:expr),* $(,)?) => {
        sqlx::query_scalar!(
            $head
                + " (due_at is null or due_at > $1 and state = 'CAPTURED' and not exists (
                      select from refund where refund.payment_id = payment.payment_id
                        and refund.state = 'PENDING' and refund.reference is null)) "
                + $tail,
            $($parameter),*
        )
    };
}
pub(crate) use at_rest;

/// Compares one payment that the provider reported about.
pub(crate) async fn look(service: Arc<Service>) -> Result<Did, Unexpected> {
    check_one(&service, OffsetDateTime::UNIX_EPOCH).await
}

/// Compares one payment whose day has passed, if one is due and the pace allows it.
pub(crate) async fn sweep(service: Arc<Service>) -> Result<Did, Unexpected> {
    if lag::oldest_due(&service).await?.is_none() || !service.provider.budget.take_comparison().await? {
        return Ok(Did::Nothing);
    }
    check_one(&service, service.clock.now()).await
}

/// Compares the payment that is to be compared since before `wanted`, the one for longest.
async fn check_one(service: &Service, wanted: OffsetDateTime) -> Result<Did, Unexpected> {
    let Some(payment) = claim_for_comparison(service, wanted).await? else { return Ok(Did::Nothing) };
    let payment_id = payment.payment_id;
    let ledger = Ledger::of(service, payment_id).await?;
    let theirs = match ask(service, &payment, ledger).await {
        Ok(theirs) => theirs,
        Err(CallError::OutcomeUnknown(unknown)) => {
            tracing::warn!(%payment_id, %unknown, "the provider did not answer; the payment is compared again");
            compare_later(service, &payment).await?;
            return Ok(Did::Something);
        }
        Err(CallError::NotSent(not_sent)) => {
            tracing::debug!(%payment_id, %not_sent, "the provider was not asked; the payment is compared later");
            compare_later(service, &payment).await?;
            return Ok(Did::Something);
        }
    };
    let ours = match theirs.refunds {
        Some(_) => Refund::all_of(&service.db, payment_id).await?,
        None => vec![],
    };
    match compare(&payment, ledger, &ours, theirs) {
        Verdict::Mend(fact) => {
            tracing::warn!(%payment_id, ?fact, "the provider shows a change that was not recorded; it is recorded now");
            let claimed = Claimed::load(service, payment).await?;
            // It is due again as soon as the lease would have ended, and shows then whether that was all.
            record(service, &claimed, &fact, Then::Release).await.map_err(|error| named(payment_id, error))?;
        }
        Verdict::Same => finish(service, &payment, "").await?,
        Verdict::Differs(kind) => {
            tracing::error!(%payment_id, kind, "the provider's record of this payment differs from ours");
            finish(service, &payment, kind).await?;
        }
        Verdict::Broken(why) => return Err(named(payment_id, Unexpected::Broken(why))),
    }
    Ok(Did::Something)
}

/// An error that says which payment it is about.
fn named(payment_id: PaymentId, error: Unexpected) -> Unexpected {
    match error {
        Unexpected::Broken(why) => Unexpected::Broken(format!("payment {payment_id}: {why}")),
        other => other,
    }
}

/// What the provider knows of a payment.
async fn ask(service: &Service, payment: &Payment, ledger: Ledger) -> Result<Theirs, CallError> {
    let intent_id = payment.intent_id.as_deref().unwrap_or_default();
    let intent = service.provider.get(intent_id).await?;
    let refunds = match &intent {
        Answer::Done(intent) if asks_for_refunds(payment, intent, ledger) => {
            Some(service.provider.list_refunds(intent_id).await?)
        }
        _ => None,
    };
    Ok(Theirs { intent, refunds })
}

/// An intent does not show refunds that failed after they were done, nor which refunds are still under way.
fn asks_for_refunds(payment: &Payment, intent: &Intent, ledger: Ledger) -> bool {
    payment.state == State::Captured && (intent.refunded() != ledger.refunded || payment.refunded_minor > 0)
}

/// Takes the payment that is to be compared for longest, with the lease that every call to the provider needs. It counts as
/// unanswered until the comparison has ended.
async fn claim_for_comparison(service: &Service, wanted: OffsetDateTime) -> Result<Option<Payment>, Unexpected> {
    let (now, lease) = (service.clock.now(), Uuid::now_v7());
    let claimed = at_rest!(
        r#"update payment set lease = $2, leased_until = $3, check_at = $3,
             unanswered_since = coalesce(unanswered_since, case when check_at > 'epoch' then check_at else $1 end)
           where payment_id =
             (select payment_id from payment where"#
            ..r#"
                and check_at <= $4 and intent_id is not null and (leased_until is null or leased_until < $1)
              order by check_at limit 1 for no key update skip locked)
           returning payment_id as "payment_id: PaymentId""#,
        now,
        lease,
        now + service.lease,
        wanted,
    );
    match claimed.fetch_optional(&service.db).await? {
        Some(payment_id) => Payment::leased(&service.db, payment_id, Some(lease)).await,
        None => Ok(None),
    }
}

/// Gives the lease back. The payment is compared again in a day, unless something was reported meanwhile.
async fn finish(service: &Service, payment: &Payment, difference: &str) -> Result<(), Unexpected> {
    let next = Some(service.clock.now() + CHECK_AFTER).filter(|next| *next < payment.updated_at + CHANGES_WITHIN);
    sqlx::query!(
        "update payment set lease = null, leased_until = null, difference = $3, unanswered_since = null,
           check_at = case when check_at = leased_until then $4 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id.0,
        payment.lease,
        difference,
        next,
    )
    .execute(&service.db)
    .await?;
    // The goal may have changed meanwhile.
    service.work.wake();
    Ok(())
}

/// Gives the lease back without an answer. Thirty days end with a comparison, not with a provider that is away.
async fn compare_later(service: &Service, payment: &Payment) -> Result<(), Unexpected> {
    sqlx::query!(
        "update payment set lease = null, leased_until = null,
           check_at = case when check_at = leased_until then $3 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id.0,
        payment.lease,
        service.clock.now() + UNANSWERED,
    )
    .execute(&service.db)
    .await?;
    service.work.wake();
    Ok(())
}

pub(crate) async fn count_differences(service: Arc<Service>) -> Result<Did, Unexpected> {
    let rows = sqlx::query!(
        r#"select difference, count(*) as "count!" from payment where difference <> '' group by difference"#,
    );
    let rows = rows.fetch_all(&service.db).await?;
    for kind in compare::KINDS {
        let count = rows.iter().find(|row| row.difference == kind).map_or(0, |row| row.count);
        DIFFERENCES.get_or_create(&ByProblem::new(kind)).set(count);
    }
    Ok(Did::Nothing)
}
