//! The step that drives payments to their goals: claim one that is due, decide what comes next, call the provider, conclude
//! what the response means, record that, and go on until the lease ends. No transaction is open during a call, and the begin of
//! a call is recorded before it. An unknown outcome is read from the provider when the payment is due again.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::gauge::Gauge;

use crate::call::make;
use crate::claim::{Claimed, Retry, claim, retry_later};
use crate::conclude::{Outcome, conclude};
use crate::decide::{Action, decide};
use crate::record::record;
use crate::service::Service;

/// More than any payment needs under one lease.
const MAX_TURNS: usize = 12;

pub(crate) static BEHIND: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register("payments_behind", "Payments that did not reach their goal within a minute", Gauge::default())
});

/// Drives one payment. A claim that sees more due payments wakes the next worker, or the first that is done, so the next unit is
/// not due at once.
pub(crate) async fn drive_one(service: Arc<Service>) -> Result<Next, Unexpected> {
    drive(service).await?;
    Ok(Next::AfterPause)
}

pub(crate) async fn drive(service: Arc<Service>) -> Result<Next, Unexpected> {
    if service.provider.budget.paused().is_some() {
        return Ok(Next::AfterPause);
    }
    let Some(claimed) = claim(&service).await? else { return Ok(Next::AfterPause) };
    if claimed.payment.others_are_due {
        service.work.wake();
    }
    drive_claimed(&service, claimed).await?;
    Ok(Next::AtOnce)
}

pub(crate) async fn drive_claimed(service: &Service, mut claimed: Claimed) -> Result<(), Unexpected> {
    for _ in 0..MAX_TURNS {
        let outcome = match decide(&claimed) {
            Action::Call(call) => {
                let response = make(call, &service.provider).await;
                conclude(&claimed, call, response, service.clock.now())
            }
            Action::Write(outcome) => outcome,
        };
        claimed = match outcome {
            Outcome::GoOn(call) => Claimed { call, ..claimed },
            Outcome::Record(fact, then) => match record(service, &claimed, &fact, then).await {
                Ok(Some(claimed)) => claimed,
                Ok(None) => return Ok(()),
                Err(Unexpected::Broken(why)) => return give_up(service, &claimed, &why).await,
                Err(unexpected) => return Err(unexpected),
            },
            Outcome::Retry(retry) => return retry_later(service, &claimed.payment, &retry).await,
            Outcome::Broken(why) => return give_up(service, &claimed, &why).await,
        };
    }
    give_up(service, &claimed, &format!("it did not end within {MAX_TURNS} steps")).await
}

/// An invariant does not hold: the job fails, and the payment is tried again later.
async fn give_up(service: &Service, claimed: &Claimed, why: &str) -> Result<(), Unexpected> {
    retry_later(service, &claimed.payment, &Retry::because(why.to_owned())).await?;
    Err(Unexpected::Broken(format!("payment {}: {why}", claimed.payment.payment_id)))
}

pub(crate) async fn measure_behind(service: Arc<Service>) -> Result<Next, Unexpected> {
    let count = count_behind(&service).await?;
    if BEHIND.set(count) != count {
        tracing::warn!(count, "the number of payments that are behind changed");
    }
    Ok(Next::AfterPause)
}

/// Payments that wait only for refunds that the provider accepted are not counted: those may take days.
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
