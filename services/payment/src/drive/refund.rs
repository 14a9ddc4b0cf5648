//! Gives back what is reserved for one refund. No state of the intent guards it, so it is looked up before it is repeated:
//! only a refund that the provider does not know a minute after it was first asked is asked for under another key.

use std::time::Duration;

use chassis::Unexpected;
use time::OffsetDateTime;

use super::look_up::ask;
use super::{Stopped, broken, finish, intent_of};
use crate::Service;
use crate::outcome::{Outcome, Then, record};
use crate::payment::Payment;
use crate::refund::Refund;
use crate::stripe::{self, Answer, RefundStatus, Unknown};

/// How long a call that was begun may take to show at the provider.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);
/// When an order that ended asks again for what the provider refused to give back.
const REFUSED: Duration = Duration::from_secs(600);

pub(super) async fn refund(service: &Service, payment: &Payment) -> Result<(), Stopped> {
    let Some(refund) = Refund::pending_of(&service.db, payment.payment_id).await?.into_iter().next() else {
        return Err(broken(payment, "what it reserved for refunds belongs to none"));
    };
    // The call that was begun was never sent: it is made now, under its key.
    let refund = if payment.unsent && refund.tried_at.is_some() && refund.reference.is_none() {
        refund
    } else {
        let others = match find(service, payment, &refund).await? {
            Known::It(theirs) => return conclude(service, payment, refund, &theirs).await,
            Known::Others { minor } => minor,
        };
        let Some(refund) = begin(service, payment, refund, others).await? else { return Ok(()) };
        refund
    };
    let answer = service.provider.refund(&refund.key(), intent_of(payment)?, refund.minor, refund.refund_id).await?;
    let why = match answer {
        Answer::Done(theirs) => return conclude(service, payment, refund, &theirs).await,
        Answer::Declined(reason) => reason.to_owned(),
        Answer::Refused(code) => code,
        Answer::Elsewhere(intent) => format!("its intent is {:?}", intent.status),
    };
    fail(service, payment, refund, why).await
}

/// What the provider knows of a refund.
enum Known {
    It(stripe::Refund),
    /// Only others, or none: so much in all, in minor units.
    Others {
        minor: i64,
    },
}

async fn find(service: &Service, payment: &Payment, refund: &Refund) -> Result<Known, Stopped> {
    if let Some(reference) = &refund.reference {
        return match service.provider.get_refund(reference).await? {
            Answer::Done(theirs) => Ok(Known::It(theirs)),
            answer => Err(broken(payment, &format!("refund {reference} is not told about: {answer:?}"))),
        };
    }
    if refund.tried_at.is_none() {
        return Ok(Known::Others { minor: 0 });
    }
    let all = match service.provider.list_refunds(intent_of(payment)?).await? {
        Answer::Done(all) => all,
        answer => return Err(broken(payment, &format!("its refunds are not told about: {answer:?}"))),
    };
    let minor = all.iter().filter(|theirs| theirs.counts()).map(|theirs| theirs.amount).sum();
    let ours = all.into_iter().find(|theirs| theirs.is(refund.refund_id));
    Ok(ours.map_or(Known::Others { minor }, Known::It))
}

/// Writes down under which key the provider is asked from now on. `others`: how much it gave back in refunds that are not
/// this one, in minor units. None: the lease is gone.
async fn begin(
    service: &Service,
    payment: &Payment,
    mut refund: Refund,
    others: i64,
) -> Result<Option<Refund>, Stopped> {
    let now = service.clock.now();
    match refund.tried_at {
        None => {}
        Some(tried_at) if now - tried_at >= SHOWS_WITHIN => {
            // A list without it is no proof: an empty one names nobody, and may be about anybody. The intent has a name, and
            // knows how much went back: if the others make up for all of that, this one never happened.
            let given_back = ask(service, payment).await?.refunded();
            if given_back != others {
                let why = format!("the provider gave back {given_back}, and names {others} of it");
                return Err(Unknown::new("refund", why).into());
            }
            refund.call += 1;
        }
        // The same key: what was done under it is not done again.
        Some(_) => return Ok(Some(refund)),
    }
    refund.tried_at = Some(now);
    let changed = sqlx::query!(
        "update refund set call = $2, tried_at = $3, updated_at = $3
         where refund_id = $1 and exists (select from payment where payment_id = $4 and lease = $5)",
        refund.refund_id,
        refund.call,
        now,
        payment.payment_id,
        payment.lease,
    );
    let ours = changed.execute(&service.db).await.map_err(Unexpected::from)?.rows_affected() == 1;
    Ok(ours.then_some(refund))
}

async fn conclude(
    service: &Service,
    payment: &Payment,
    refund: Refund,
    theirs: &stripe::Refund,
) -> Result<(), Stopped> {
    let reference = theirs.id.clone();
    match theirs.status {
        RefundStatus::Succeeded if theirs.amount == refund.minor => {
            finish(service, payment, Outcome::Refunded { refund: Box::new(refund), reference }).await
        }
        RefundStatus::Succeeded => {
            let why = format!("refund {reference} gave back {} instead of {}", theirs.amount, refund.minor);
            Err(broken(payment, &why))
        }
        RefundStatus::Failed | RefundStatus::Canceled => {
            let refund = Refund { reference: Some(reference), ..refund };
            fail(service, payment, refund, theirs.why().to_owned()).await
        }
        RefundStatus::UnderWay => {
            let asked =
                Refund { reference: Some(reference.clone()), updated_at: service.clock.now(), ..refund.clone() };
            let rest = rest(service, payment, &refund, asked.due_at()).await?;
            let outcome = Outcome::RefundUnderWay { refund: Box::new(refund), reference };
            record(service, payment, outcome, Then::Rest(rest)).await?;
            Ok(())
        }
    }
}

/// How long the payment rests after one of its refunds was asked about, which is due again at `next`: no longer than until
/// another one is due.
async fn rest(
    service: &Service,
    payment: &Payment,
    asked: &Refund,
    next: OffsetDateTime,
) -> Result<Duration, Unexpected> {
    let pending = Refund::pending_of(&service.db, payment.payment_id).await?;
    let other = pending.iter().find(|other| other.refund_id != asked.refund_id).map(Refund::due_at);
    let wait = other.map_or(next, |other| other.min(next)) - service.clock.now();
    Ok(wait.try_into().unwrap_or_default())
}

/// What was reserved is free again. An order that ended still wants it back, so its payment is behind until that succeeds, or
/// until it is clear that it will not: then operators have to look at it.
async fn fail(service: &Service, payment: &Payment, refund: Refund, why: String) -> Result<(), Stopped> {
    let rest = rest(service, payment, &refund, service.clock.now() + REFUSED).await?;
    let outcome = Outcome::RefundFailed { refund: Box::new(refund), why };
    record(service, payment, outcome, Then::Rest(rest)).await?;
    // Somebody may have given it back at the provider itself.
    sqlx::query!("update payment set check_at = 'epoch' where payment_id = $1", payment.payment_id)
        .execute(&service.db)
        .await
        .map_err(Unexpected::from)?;
    service.looks.wake();
    Ok(())
}
