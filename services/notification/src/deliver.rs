//! The step that delivers notifications: claim a set that is due, which records the attempts; for each, ask the user service for the
//! address, render the text and send it; record the outcomes. No transaction is open during a call.
//!
//! If a process is killed after the mail server accepted a mail and before that is recorded, the mail is sent again, with the same
//! Message-ID: a notification is delivered at least once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::claim::{Claimed, claim};
use crate::contact::{Contact, NoContact};
use crate::kind::{Channel, State};
use crate::numbers;
use crate::outcome::{Outcome, RetryReason};
use crate::record::{record, record_until};
use crate::service::Service;
use crate::smtp::Mail;
use crate::templates::Text;
use crate::text;

pub(crate) const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many a worker claims and delivers at once. Each asks the user service for an address, which has others to serve.
const SET: i64 = 8;

static BEHIND: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "notifications_behind",
        "Notifications that were not delivered within a minute, 10,000 at most",
        Gauge::default(),
    )
});

/// Delivers some e-mails.
pub(crate) async fn emails(service: Arc<Service>) -> Result<Next, Unexpected> {
    deliver(service, Channel::Email).await
}

/// Delivers some text messages.
pub(crate) async fn text_messages(service: Arc<Service>) -> Result<Next, Unexpected> {
    deliver(service, Channel::Sms).await
}

/// Each channel has workers of its own, so that none waits for another.
async fn deliver(service: Arc<Service>, channel: Channel) -> Result<Next, Unexpected> {
    let lease_end = Instant::now() + service.lease;
    let most = service.availability(channel).admit(SET, service.clock.now());
    let claimed = if most == 0 { vec![] } else { claim(&service, channel, most).await? };
    if claimed.is_empty() {
        return Ok(Next::AfterPause);
    }
    // Tasks, which go on while outcomes are recorded.
    let (mut deliveries, mut claims) = (JoinSet::new(), HashMap::new());
    for claimed in claimed.into_iter().map(Arc::new) {
        let task = deliveries.spawn(deliver_one(service.clone(), claimed.clone()));
        claims.insert(task.id(), claimed);
    }
    // What has an outcome is recorded without waiting for the others of the set, which continue if that fails.
    let mut unrecorded = Vec::new();
    while let Some(ended) = deliveries.join_next_with_id().await {
        let others = std::iter::from_fn(|| deliveries.try_join_next_with_id());
        for ended in std::iter::once(ended).chain(others) {
            let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
            let claimed = claims.remove(&task).expect("each task has one");
            let outcome = match ended {
                Ok((_, outcome)) => outcome,
                Err(error) => panicked(&service, &claimed, &error),
            };
            unrecorded.push((claimed, outcome));
        }
        match record(&service, &unrecorded).await {
            Ok(()) => unrecorded.clear(),
            Err(error) => tracing::warn!(%error, "outcomes of notifications are recorded with those that follow"),
        }
    }
    if !unrecorded.is_empty() {
        record_until(&service, lease_end, &unrecorded).await?;
    }
    Ok(Next::AtOnce)
}

async fn deliver_one(service: Arc<Service>, claimed: Arc<Claimed>) -> Outcome {
    let outcome = match claimed.limited_until(&service) {
        Some(until) => Outcome::Limited(until),
        None => attempt(&service, &claimed).await,
    };
    service.availability(claimed.channel).record(outcome.seen(), service.clock.now());
    let outcome = outcome.or_give_up(&service, &claimed);
    outcome.log(&claimed);
    outcome
}

/// It may have panicked after the message was handed over, so there are few further attempts.
fn panicked(service: &Service, claimed: &Claimed, error: &JoinError) -> Outcome {
    tracing::error!(notification_id = %claimed.notification_id, %error, "a delivery panicked");
    let outcome = Outcome::Retry(RetryReason::OutcomeUnknown, "the delivery panicked".to_owned());
    let outcome = outcome.or_give_up(service, claimed);
    outcome.log(claimed);
    outcome
}

/// Without recording the outcome.
pub(crate) async fn attempt(service: &Service, claimed: &Claimed) -> Outcome {
    if claimed.is_unwanted {
        return ended(State::Dropped, "the user does not want it");
    }
    let facts = match text::read(claimed.kind, &claimed.event) {
        Ok(facts) => facts,
        Err(error) => return broken(claimed, &error),
    };
    let contact = match text::contact(service, &facts, claimed).await {
        Ok(contact) => contact,
        Err(NoContact::Gone) => return ended(State::Dropped, "there is nobody to notify"),
        Err(NoContact::Away(code)) => {
            return Outcome::Retry(RetryReason::ServerUnavailable, format!("the user service is away: {code:?}"));
        }
        Err(NoContact::Failed(code)) => {
            return Outcome::Retry(RetryReason::NotSent, format!("the user service replied {code:?}"));
        }
    };
    let text = match text::render(service, claimed, &facts, &contact) {
        Ok(text) => text,
        Err(error) => return broken(claimed, &error),
    };
    match claimed.channel {
        Channel::Email => email(service, claimed, &contact, text).await,
        Channel::Sms => text_message(service, claimed, &contact, &text).await,
    }
}

async fn email(service: &Service, claimed: &Claimed, contact: &Contact, text: Text) -> Outcome {
    // Links are sent all the same: one of them proves that the address is mended. So is what an operator resends.
    if contact.email_refused && contact.link.is_none() && !claimed.is_resent {
        return ended(State::Refused, "a mail server has refused the address before");
    }
    service.smtp.send(Mail { id: claimed.notification_id, contact, text }).await.into()
}

async fn text_message(service: &Service, claimed: &Claimed, contact: &Contact, text: &Text) -> Outcome {
    if contact.phone.is_empty() {
        return ended(State::Dropped, "the user has no phone number");
    }
    let Some(sms) = &service.sms else {
        return Outcome::Retry(RetryReason::NotSent, "NOTIFICATION_SMS_ACCOUNT is not set".to_owned());
    };
    let hour = numbers::hour(service.clock.now());
    match service.numbers.take(service, &contact.phone, hour).await {
        Ok(Ok(())) => {}
        Ok(Err(until)) => return Outcome::Limited(until),
        Err(error) => return broken(claimed, &error),
    }
    let outcome = Outcome::from(sms.send(&contact.phone, &text.sms).await);
    // What may have been accepted counts.
    if !matches!(outcome, Outcome::Ended(State::Delivered, _) | Outcome::Retry(RetryReason::OutcomeUnknown, _)) {
        service.numbers.give_back(service, &contact.phone, hour).await;
    }
    outcome
}

fn ended(state: State, why: &str) -> Outcome {
    Outcome::Ended(state, why.to_owned())
}

/// Our own mistake, which a release mends within the time of attempts.
fn broken(claimed: &Claimed, error: &Unexpected) -> Outcome {
    tracing::error!(notification_id = %claimed.notification_id, %error, "a notification cannot be written");
    Outcome::Retry(RetryReason::NotSent, "it cannot be written".to_owned())
}

pub(crate) async fn measure_behind(service: Arc<Service>) -> Result<Next, Unexpected> {
    let since = service.clock.now() - Duration::from_secs(60);
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from
             (select from notification where due_at is not null and wanted_at < $1 limit 10000) as behind"#,
        since,
    );
    let count = count.fetch_one(&service.db).await?;
    if BEHIND.set(count) != count {
        tracing::warn!(count, "the number of notifications that are behind changed");
    }
    Ok(Next::AfterPause)
}
