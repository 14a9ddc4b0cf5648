//! Compares payments without a pending call with the provider: at once after a webhook, and once a day for thirty days after
//! their last change, at a rate that all replicas share. Changes at the provider that can be recorded are recorded, and all
//! other differences are reported by a metric and a line in the log. Payments with a pending call are left to [`crate::drive`]. A
//! payment whose refund was refused is compared too: an operator may have refunded it at the provider.

mod compare;
mod lag;

use std::sync::{Arc, LazyLock};

use chassis::boot::metrics::{self, ByProblem};
use chassis::{Next, Unexpected};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::claim::Claimed;
use crate::conclude::Then;
use crate::ids::PaymentId;
use crate::payment::{COMPARE_AFTER, Payment};
use crate::record::record;
use crate::refund::Refund;
use crate::service::Service;
use crate::state::State;
use crate::stripe::{CallError, Intent, Response};
use compare::{Sums, Theirs, Verdict, compare};
#[cfg(test)]
pub(crate) use lag::Lag;
pub(crate) use lag::measure_lag;

/// How long after its last change a payment is compared.
const CHANGES_WITHIN: Duration = Duration::days(30);
/// How long until a comparison without a response is tried again.
const RETRY_AFTER: Duration = Duration::seconds(30);

static DIFFERENCES: LazyLock<Family<ByProblem, Gauge>> = LazyLock::new(|| {
    metrics::register(
        "payment_differences",
        "Payments of which the provider's record differs from ours, by what differs",
        Family::default(),
    )
});

/// A query of one column of payments that can be compared: the text before the condition, the text after it, and its parameters, the
/// first of which is the time. Those can whose goal is reached, and those that are captured, due later, and without a refund that the
/// provider has not accepted.
macro_rules! comparable {
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
pub(crate) use comparable;

/// Compares one payment that a webhook reported about.
pub(crate) async fn compare_reported(service: Arc<Service>) -> Result<Next, Unexpected> {
    compare_one(&service, OffsetDateTime::UNIX_EPOCH).await
}

/// Compares one payment that was last compared a day ago, if the rate allows it.
pub(crate) async fn compare_daily(service: Arc<Service>) -> Result<Next, Unexpected> {
    if lag::oldest_due(&service).await?.is_none() || !service.provider.budget.take_comparison().await? {
        return Ok(Next::AfterPause);
    }
    compare_one(&service, service.clock.now()).await
}

/// Compares the payment whose comparison is due for longest, among those due at this time.
async fn compare_one(service: &Service, due: OffsetDateTime) -> Result<Next, Unexpected> {
    let Some(payment) = claim_for_comparison(service, due).await? else { return Ok(Next::AfterPause) };
    let payment_id = payment.payment_id;
    let ledger = Sums::of(service, payment_id).await?;
    let theirs = match read_provider(service, &payment, ledger).await {
        Ok(theirs) => theirs,
        Err(CallError::OutcomeUnknown(unknown)) => {
            tracing::warn!(%payment_id, %unknown, "the provider did not respond; the payment is compared again later");
            compare_later(service, &payment).await?;
            return Ok(Next::AtOnce);
        }
        Err(CallError::NotSent(not_sent)) => {
            tracing::debug!(%payment_id, %not_sent, "the comparison was not sent to the provider; the payment is compared later");
            compare_later(service, &payment).await?;
            return Ok(Next::AtOnce);
        }
    };
    let disputed = matches!(&theirs.intent, Response::Done(intent) if intent.is_disputed());
    let ours = match theirs.refunds {
        Some(_) => Refund::all_of(&service.db, payment_id).await?,
        None => vec![],
    };
    match compare(&payment, ledger, &ours, theirs) {
        Verdict::Record(fact) => {
            tracing::warn!(%payment_id, ?fact, "the provider shows a change that was not recorded; it is recorded now");
            let claimed = Claimed::load(service, payment).await?;
            // It is compared again when the lease would have expired, in case there are more changes.
            record(service, &claimed, &fact, Then::EndLease).await.map_err(|error| named(payment_id, error))?;
        }
        Verdict::Same => finish(service, &payment, "", disputed).await?,
        Verdict::Differs(problem) => {
            tracing::error!(%payment_id, problem, "the provider's record of this payment differs from ours");
            finish(service, &payment, problem, disputed).await?;
        }
        Verdict::Broken(why) => return Err(named(payment_id, Unexpected::Broken(why))),
    }
    Ok(Next::AtOnce)
}

/// An error that says which payment it is about.
fn named(payment_id: PaymentId, error: Unexpected) -> Unexpected {
    match error {
        Unexpected::Broken(why) => Unexpected::Broken(format!("payment {payment_id}: {why}")),
        other => other,
    }
}

/// Reads a payment from the provider.
async fn read_provider(service: &Service, payment: &Payment, ledger: Sums) -> Result<Theirs, CallError> {
    let intent_id = payment.intent_id.as_deref().unwrap_or_default();
    let intent = service.provider.get(intent_id).await?;
    let refunds = match &intent {
        Response::Done(intent) if needs_refunds(payment, intent, ledger) => {
            Some(service.provider.list_refunds(intent_id).await?)
        }
        _ => None,
    };
    Ok(Theirs { intent, refunds })
}

/// An intent does not show refunds that failed after they had succeeded, nor which refunds are pending.
fn needs_refunds(payment: &Payment, intent: &Intent, ledger: Sums) -> bool {
    payment.state == State::Captured && (intent.refunded() != ledger.refunded || payment.refunded_minor > 0)
}

/// Claims the payment whose comparison is due for longest, with the lease that every call to the provider needs. The column
/// `unanswered_since` is set until the comparison has ended.
async fn claim_for_comparison(service: &Service, due: OffsetDateTime) -> Result<Option<Payment>, Unexpected> {
    let (now, lease) = (service.clock.now(), Uuid::now_v7());
    let claimed = comparable!(
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
        due,
    );
    match claimed.fetch_optional(&service.db).await? {
        Some(payment_id) => Payment::leased(&service.db, payment_id, Some(lease)).await,
        None => Ok(None),
    }
}

/// Ends the lease. The payment is compared again in a day, or at once if a webhook arrived meanwhile.
async fn finish(service: &Service, payment: &Payment, difference: &str, disputed: bool) -> Result<(), Unexpected> {
    let next = Some(service.clock.now() + COMPARE_AFTER).filter(|next| *next < payment.updated_at + CHANGES_WITHIN);
    sqlx::query!(
        "update payment set lease = null, leased_until = null, difference = $3, disputed = $5, unanswered_since = null,
           check_at = case when check_at = leased_until then $4 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id.0,
        payment.lease,
        difference,
        next,
        disputed,
    )
    .execute(&service.db)
    .await?;
    // The goal may have changed meanwhile.
    service.work.wake();
    Ok(())
}

/// Ends the lease without a response. The comparison stays due, even after the thirty days.
async fn compare_later(service: &Service, payment: &Payment) -> Result<(), Unexpected> {
    sqlx::query!(
        "update payment set lease = null, leased_until = null,
           check_at = case when check_at = leased_until then $3 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id.0,
        payment.lease,
        service.clock.now() + RETRY_AFTER,
    )
    .execute(&service.db)
    .await?;
    service.work.wake();
    Ok(())
}

pub(crate) async fn count_differences(service: Arc<Service>) -> Result<Next, Unexpected> {
    let rows = sqlx::query!(
        r#"select difference, count(*) as "count!" from payment where difference <> '' group by difference"#,
    );
    let rows = rows.fetch_all(&service.db).await?;
    for problem in compare::PROBLEMS {
        let count = rows.iter().find(|row| row.difference == problem).map_or(0, |row| row.count);
        DIFFERENCES.get_or_create(&ByProblem::new(problem)).set(count);
    }
    Ok(Next::AfterPause)
}
