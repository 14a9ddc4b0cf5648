//! Payments at rest are compared with what the provider knows: at once where it reported something, and all of them once a
//! day, at a pace that all replicas share, for as long as something may still happen to them. What is safe to mend is mended, everything else is told
//! by a metric and a line in the log. What is under way asks the provider anyway, see [`crate::drive`]; a payment that rests
//! after a refused refund is compared too, for that may be what was refused.

use std::sync::{Arc, LazyLock};

use chassis::Did;
use chassis::Unexpected;
use chassis::boot::metrics::{self, Of};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::Service;
use crate::drive::{Stopped, broken, intent_of};
use crate::goal::{Goal, State};
use crate::outcome::{Outcome, Then, record};
use crate::payment::{CHECK_AFTER, Payment, Row};
use crate::refund::Refund;
use crate::stripe::{Answer, Intent, RefundStatus, Status};

/// How long after its last change a payment is compared.
const CHANGES_WITHIN: Duration = Duration::days(30);
/// When a provider that did not answer is asked again.
const UNANSWERED: Duration = Duration::seconds(30);

/// How late a comparison may be before somebody is told.
const TOLERATED: Duration = Duration::hours(1);

static LAG: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "payment_comparison_lag_seconds",
        "How long ago the payment was due that waits longest to be compared with the provider",
        Gauge::default(),
    )
});
static DIFFERENCES: LazyLock<Family<Of, Gauge>> = LazyLock::new(|| {
    metrics::register("payment_differences", "Payments that the provider tells otherwise, by what", Family::default())
});

/// What may differ: a kind of movement, or that the provider does not know the intent.
const KINDS: [&str; 5] = ["authorized", "captured", "voided", "refunded", "missing"];

/// What moved, in minor units, in the order of [`KINDS`].
type Moved = [i64; 4];

/// Looks at one payment that the provider reported about.
pub(crate) async fn look(service: Arc<Service>) -> Result<Did, Unexpected> {
    check_one(&service, OffsetDateTime::UNIX_EPOCH).await
}

/// Looks at one payment whose day has passed, if one is due and the pace allows it.
pub(crate) async fn sweep(service: Arc<Service>) -> Result<Did, Unexpected> {
    if oldest_due(&service).await?.is_none() || !service.provider.budget.take_comparison().await? {
        return Ok(Did::Nothing);
    }
    check_one(&service, service.clock.now()).await
}

/// Since when the payment is due that waits longest for its daily comparison to begin. What is under way is not due: it asks the
/// provider anyway.
async fn oldest_due(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = sqlx::query_scalar!(
        r#"select check_at as "at!" from payment
           where check_at > 'epoch' and check_at <= $1 and intent_id is not null
             and (due_at is null or due_at > $1 and state = 'CAPTURED' and not exists (
               select from refund where refund.payment_id = payment.payment_id
                 and refund.state = 'PENDING' and refund.reference is null))
             and (leased_until is null or leased_until < $1)
           order by check_at limit 1"#,
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// Since when the comparison was due that waits longest for an answer of the provider.
async fn oldest_unanswered(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = sqlx::query_scalar!(
        r#"select unanswered_since as "since!" from payment
           where unanswered_since is not null
             and (due_at is null or due_at > $1 and state = 'CAPTURED' and not exists (
               select from refund where refund.payment_id = payment.payment_id
                 and refund.state = 'PENDING' and refund.reference is null))
           order by unanswered_since limit 1"#,
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// How late the payments are that wait longest.
pub(crate) struct Lag {
    /// For a comparison to begin.
    due: Duration,
    /// For an answer of the provider: one that it did not answer is as late as one that did not begin.
    unanswered: Duration,
}

impl Lag {
    pub(crate) async fn measure(service: &Service) -> Result<Self, Unexpected> {
        let now = service.clock.now();
        let late = |since: Option<OffsetDateTime>| since.map_or(Duration::ZERO, |since| now - since);
        let (due, unanswered) = (oldest_due(service).await?, oldest_unanswered(service).await?);
        Ok(Self { due: late(due), unanswered: late(unanswered) })
    }

    pub(crate) fn longest(&self) -> Duration {
        self.due.max(self.unanswered)
    }

    pub(crate) fn why(&self) -> &'static str {
        if self.unanswered < self.due { "PAYMENT_RECONCILE_RATE is too low" } else { "the provider does not answer" }
    }
}

/// How far comparisons are behind what is promised.
pub(crate) async fn measure_lag(service: Arc<Service>) -> Result<Did, Unexpected> {
    let found = Lag::measure(&service).await?;
    let lag = found.longest();
    let (before, seconds) = (LAG.get(), lag.whole_seconds());
    LAG.set(seconds);
    let (was_late, is_late) = (before > TOLERATED.whole_seconds(), lag > TOLERATED);
    if is_late && !was_late {
        tracing::warn!(%lag, why = found.why(), "payments are compared with the provider later than once a day");
    } else if was_late && !is_late {
        tracing::info!("payments are compared with the provider once a day again");
    }
    Ok(Did::Nothing)
}

async fn check_one(service: &Service, wanted: OffsetDateTime) -> Result<Did, Unexpected> {
    let Some(payment) = claim(service, wanted).await? else { return Ok(Did::Nothing) };
    match compare(service, &payment).await {
        Ok(Verdict::Mend(outcome)) => {
            tracing::warn!(payment_id = %payment.payment_id, ?outcome, "the provider did what we did not know of");
            // It is due again as soon as the lease would have ended, and shows then whether that was all.
            record(service, &payment, outcome, Then::LetGo).await?;
        }
        Ok(Verdict::Same) => finish(service, &payment, "").await?,
        Ok(Verdict::Differs(kind)) => {
            tracing::error!(payment_id = %payment.payment_id, kind, "the provider tells this payment otherwise");
            finish(service, &payment, kind).await?;
        }
        Err(Stopped::Unknown(unknown)) => {
            tracing::warn!(payment_id = %payment.payment_id, %unknown, "it is compared again");
            put_off(service, &payment).await?;
        }
        Err(Stopped::Unsent(unsent)) => {
            tracing::debug!(payment_id = %payment.payment_id, %unsent, "it is compared later");
            put_off(service, &payment).await?;
        }
        Err(Stopped::Unexpected(unexpected)) => return Err(unexpected),
    }
    Ok(Did::Something)
}

/// Takes the payment that is to be compared for longest, with the lease that every call to the provider needs. It counts as
/// unanswered until the comparison has ended.
async fn claim(service: &Service, wanted: OffsetDateTime) -> Result<Option<Payment>, Unexpected> {
    let now = service.clock.now();
    let row = sqlx::query_as!(
        Row,
        "update payment set lease = $2, leased_until = $3, check_at = $3,
           unanswered_since = coalesce(unanswered_since, case when check_at > 'epoch' then check_at else $1 end)
         where payment_id =
           (select payment_id from payment
            where check_at <= $4 and intent_id is not null
              and (due_at is null or due_at > $1 and state = 'CAPTURED' and not exists (
               select from refund where refund.payment_id = payment.payment_id
                 and refund.state = 'PENDING' and refund.reference is null))
              and (leased_until is null or leased_until < $1)
            order by check_at limit 1 for no key update skip locked)
         returning payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, intent_id,
           captured_minor, refunded_minor, refund_pending_minor, failure_reason, version, cause_id, lease, call, unsent,
           refund_refusal, attempts, created_at, updated_at",
        now,
        Uuid::now_v7(),
        now + service.lease,
        wanted,
    );
    row.fetch_optional(&service.db).await?.map(Row::into_payment).transpose()
}

/// Gives the lease back. It is compared again in a day, unless something was reported meanwhile.
async fn finish(service: &Service, payment: &Payment, kind: &str) -> Result<(), Unexpected> {
    let next = Some(service.clock.now() + CHECK_AFTER).filter(|next| *next < payment.updated_at + CHANGES_WITHIN);
    sqlx::query!(
        "update payment set lease = null, leased_until = null, difference = $3, unanswered_since = null,
           check_at = case when check_at = leased_until then $4 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id,
        payment.lease,
        kind,
        next,
    )
    .execute(&service.db)
    .await?;
    // The order may have wanted something meanwhile.
    service.work.wake();
    Ok(())
}

/// Gives the lease back without an answer. Thirty days end with a comparison, not with a provider that is away.
async fn put_off(service: &Service, payment: &Payment) -> Result<(), Unexpected> {
    sqlx::query!(
        "update payment set lease = null, leased_until = null,
           check_at = case when check_at = leased_until then $3 else check_at end
         where payment_id = $1 and lease = $2",
        payment.payment_id,
        payment.lease,
        service.clock.now() + UNANSWERED,
    )
    .execute(&service.db)
    .await?;
    service.work.wake();
    Ok(())
}

enum Verdict {
    Same,
    Differs(&'static str),
    Mend(Outcome),
}

async fn compare(service: &Service, payment: &Payment) -> Result<Verdict, Stopped> {
    let intent = match service.provider.get(intent_of(payment)?).await? {
        Answer::Done(intent) => intent,
        Answer::Refused(_) => return Ok(Verdict::Differs("missing")),
        answer => return Err(broken(payment, &format!("looking its intent up was refused: {answer:?}"))),
    };
    // The order would wait for its capture for ever. It stands by now: nobody authorizes what is called off.
    if (payment.goal, payment.state, intent.status) == (Goal::Authorized, State::Authorized, Status::Canceled) {
        return Ok(Verdict::Mend(Outcome::CaptureFailed { reason: "AUTHORIZATION_LOST" }));
    }
    let (ours, mut theirs) = (ledger(service, payment).await?, moved(payment, &intent));
    // An intent does not tell of refunds that failed after they were done, nor of one that is under way from one that is done.
    if payment.state == State::Captured && (theirs[3] != ours[3] || payment.refunded_minor > 0) {
        match list_refunds(service, payment).await? {
            Refunds::News(outcome) => return Ok(Verdict::Mend(outcome)),
            Refunds::Known { succeeded } => theirs[3] = succeeded,
        }
    }
    let differs = KINDS.into_iter().zip(ours.into_iter().zip(theirs)).find(|(_, (ours, theirs))| ours != theirs);
    Ok(differs.map_or(Verdict::Same, |(kind, _)| Verdict::Differs(kind)))
}

/// What the provider says.
fn moved(payment: &Payment, intent: &Intent) -> Moved {
    let authorized = if intent.was_held() { payment.amount_minor } else { 0 };
    let voided = match intent.status {
        Status::Canceled => authorized,
        // What a capture of a part left of it.
        Status::Succeeded => authorized - intent.amount_received,
        _ => 0,
    };
    [authorized, intent.amount_received, voided, intent.refunded()]
}

/// What our ledger says.
async fn ledger(service: &Service, payment: &Payment) -> Result<Moved, Unexpected> {
    let row = sqlx::query!(
        r#"select coalesce(sum(minor) filter (where kind = 'AUTHORIZATION'), 0)::bigint as "authorized!",
             coalesce(sum(minor) filter (where kind = 'CAPTURE'), 0)::bigint as "captured!",
             coalesce(sum(minor) filter (where kind = 'VOID'), 0)::bigint as "voided!",
             coalesce(sum(case kind when 'REFUND' then minor when 'REFUND_REVERSAL' then -minor end), 0)::bigint
               as "refunded!"
           from ledger_transfer where payment_id = $1"#,
        payment.payment_id,
    );
    let row = row.fetch_one(&service.db).await?;
    Ok([row.authorized, row.captured, row.voided, row.refunded])
}

enum Refunds {
    /// One that was made at the provider itself, that came to its end there, or that failed after it was done.
    News(Outcome),
    Known {
        succeeded: i64,
    },
}

async fn list_refunds(service: &Service, payment: &Payment) -> Result<Refunds, Stopped> {
    let intent_id = intent_of(payment)?;
    let theirs = match service.provider.list_refunds(intent_id).await? {
        Answer::Done(theirs) => theirs,
        answer => return Err(broken(payment, &format!("its refunds are not told about: {answer:?}"))),
    };
    let ours = Refund::all_of(&service.db, payment.payment_id).await?;
    let mut succeeded = 0;
    for refund in theirs {
        let known = ours.iter().find(|known| known.reference.as_deref() == Some(refund.id.as_str()));
        match (refund.status, known) {
            (RefundStatus::Succeeded, None)
                // What does not fit into what was captured, or does not say that it belongs here, is not booked; it differs.
                if refund.names(intent_id) && refund.amount <= payment.unrefunded() =>
            {
                return Ok(Refunds::News(Outcome::RefundedElsewhere { reference: refund.id, minor: refund.amount }));
            }
            (RefundStatus::Succeeded, Some(known)) if known.state == "PENDING" && known.minor == refund.amount => {
                let (known, reference) = (Box::new(known.clone()), refund.id);
                return Ok(Refunds::News(Outcome::Refunded { refund: known, reference }));
            }
            (RefundStatus::Failed | RefundStatus::Canceled, Some(known)) if known.state != "FAILED" => {
                let (known, why) = (Box::new(known.clone()), refund.why().to_owned());
                return Ok(Refunds::News(match known.state.as_str() {
                    "PENDING" => Outcome::RefundFailed { refund: known, why },
                    _ => Outcome::RefundReversed { refund: known, why },
                }));
            }
            (RefundStatus::Succeeded, _) => succeeded += refund.amount,
            _ => {}
        }
    }
    Ok(Refunds::Known { succeeded })
}

pub(crate) async fn count_differences(service: Arc<Service>) -> Result<Did, Unexpected> {
    let rows = sqlx::query!(
        r#"select difference, count(*) as "count!" from payment where difference <> '' group by difference"#,
    );
    let rows = rows.fetch_all(&service.db).await?;
    for kind in KINDS {
        let count = rows.iter().find(|row| row.difference == kind).map_or(0, |row| row.count);
        DIFFERENCES.get_or_create(&Of::new(kind)).set(count);
    }
    Ok(Did::Nothing)
}
