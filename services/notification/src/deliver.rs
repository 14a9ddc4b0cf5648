//! The step that delivers notifications: claim a set that is due, which records the attempts; for each, ask the user service for the
//! address, render the text and send it; record the outcomes. No transaction is open during a call.
//!
//! If a process is killed after the mail server accepted a mail and before that is recorded, the mail is sent again, with the same
//! Message-ID: a notification is delivered at least once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics::{self, ByOutcome};
use chassis::{Did, Unexpected};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::claim::{Claimed, claim, record};
use crate::contact::NoContact;
use crate::kind::{Channel, State};
use crate::service::Service;
use crate::smtp::Mail;
use crate::text;

pub(crate) const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many a worker claims and delivers at once. Each asks the user service for an address, which has others to serve.
const SET: i64 = 8;

static DELIVERIES: LazyLock<Family<ByOutcome, Counter>> = LazyLock::new(|| {
    metrics::register("notification_deliveries", "Attempts to deliver notifications, by outcome", Family::default())
});
static BEHIND: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "notifications_behind",
        "Notifications that were not delivered within a minute, 10,000 at most",
        Gauge::default(),
    )
});

/// Why a message was not accepted. None has the text of a reply, which may have the address.
#[derive(Debug, PartialEq)]
pub(crate) enum SendError {
    /// For good.
    Refused(String),
    /// For good, and so is any other mail to this address.
    AddressRefused(String),
    /// It may be accepted later.
    Failed(Patience, String),
}

/// What another attempt waits for, which says how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A server that is away or does not work, for all.
    ForServer,
    /// A server that replied that it does not accept this message now.
    ForRecipient,
}

/// What became of an attempt. Its text never has an address: replies of mail servers may, and are not kept.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Ended(State, String),
    /// The notification is refused; the user service marks the address.
    AddressRefused(String),
    Retry(Patience, String),
    /// Its user got too many within the last hour: nothing was attempted.
    Limited,
}

impl Outcome {
    /// A delivery that failed for too long is given up.
    fn or_give_up(self, service: &Service, claimed: &Claimed) -> Self {
        match self {
            Self::Retry(_, why) if service.clock.now() >= claimed.wanted_at + service.give_up_after => {
                Self::Ended(State::GivenUp, why)
            }
            outcome => outcome,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ended(state, _) => state.name(),
            Self::AddressRefused(_) => State::Refused.name(),
            Self::Retry(..) => "RETRY",
            Self::Limited => "LIMITED",
        }
    }
}

/// Delivers some e-mails.
pub(crate) async fn emails(service: Arc<Service>) -> Result<Did, Unexpected> {
    deliver(service, Channel::Email).await
}

/// Delivers some text messages.
pub(crate) async fn texts(service: Arc<Service>) -> Result<Did, Unexpected> {
    deliver(service, Channel::Sms).await
}

/// Each channel has workers of its own, so that none waits for another.
async fn deliver(service: Arc<Service>, channel: Channel) -> Result<Did, Unexpected> {
    let claimed = claim(&service, channel, SET).await?;
    if claimed.is_empty() {
        return Ok(Did::Nothing);
    }
    let deliveries = claimed.into_iter().map(|claimed| async {
        let outcome = deliver_one(&service, &claimed).await;
        (claimed, outcome)
    });
    // What has an outcome is recorded without waiting for the others of the set.
    let mut outcomes = deliveries.collect::<FuturesUnordered<_>>().ready_chunks(SET as usize);
    while let Some(outcomes) = outcomes.next().await {
        record(&service, &outcomes).await?;
        if outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::AddressRefused(_))) {
            service.refusals.wake();
        }
    }
    Ok(Did::Something)
}

async fn deliver_one(service: &Service, claimed: &Claimed) -> Outcome {
    let is_limited = service.per_hour.is_some_and(|most| claimed.rank > most);
    let outcome = if is_limited { Outcome::Limited } else { attempt(service, claimed).await };
    let outcome = outcome.or_give_up(service, claimed);
    log(claimed, &outcome);
    outcome
}

/// Without recording the outcome.
pub(crate) async fn attempt(service: &Service, claimed: &Claimed) -> Outcome {
    let ended = |state, why: &str| Outcome::Ended(state, why.to_owned());
    if claimed.is_unwanted {
        return ended(State::Dropped, "the user does not want it");
    }
    let facts = match text::read(claimed.kind, &claimed.event, claimed.occurred_at) {
        Ok(facts) => facts,
        Err(error) => return broken(claimed, &error),
    };
    let contact = match text::contact(service, &facts, claimed).await {
        Ok(contact) => contact,
        Err(NoContact::Gone) => return ended(State::Dropped, "there is nobody to notify"),
        Err(NoContact::Unknown(code)) => {
            return Outcome::Retry(Patience::ForServer, format!("the user service replied {code:?}"));
        }
    };
    let text = match text::render(service, claimed.kind, &facts, &contact) {
        Ok(text) => text,
        Err(error) => return broken(claimed, &error),
    };
    let sent = match (claimed.channel, &service.sms) {
        // Links are sent all the same: one of them proves that the address is mended. So is what an operator resends.
        (Channel::Email, _) if contact.email_refused && contact.link.is_none() && !claimed.is_resent => {
            return ended(State::Refused, "a mail server has refused the address before");
        }
        (Channel::Email, _) => {
            let mail = Mail { id: claimed.notification_id, contact: &contact, text };
            service.smtp.send(mail).await
        }
        (Channel::Sms, _) if contact.phone.is_empty() => {
            return ended(State::Dropped, "the user has no phone number");
        }
        (Channel::Sms, Some(sms)) => sms.send(&contact.phone, &text.sms).await,
        (Channel::Sms, None) => {
            Err(SendError::Failed(Patience::ForRecipient, "NOTIFICATION_SMS_ACCOUNT is not set".to_owned()))
        }
    };
    match sent {
        Ok(()) => Outcome::Ended(State::Delivered, String::new()),
        Err(SendError::Refused(why)) => Outcome::Ended(State::Refused, why),
        Err(SendError::AddressRefused(why)) => Outcome::AddressRefused(why),
        Err(SendError::Failed(patience, why)) => Outcome::Retry(patience, why),
    }
}

/// Our own mistake, which a release mends within the time of attempts.
fn broken(claimed: &Claimed, error: &Unexpected) -> Outcome {
    tracing::error!(notification_id = %claimed.notification_id, %error, "a notification cannot be written");
    Outcome::Retry(Patience::ForRecipient, "it cannot be written".to_owned())
}

fn log(claimed: &Claimed, outcome: &Outcome) {
    DELIVERIES.get_or_create(&ByOutcome::new(outcome.name())).inc();
    let (notification_id, kind, attempts) = (claimed.notification_id, claimed.kind.name(), claimed.attempts);
    match outcome {
        Outcome::Ended(State::Delivered | State::Dropped, _) => {
            tracing::debug!(%notification_id, kind, attempts, outcome = outcome.name(), "a notification has ended");
        }
        Outcome::Ended(_, why) | Outcome::AddressRefused(why) => {
            tracing::warn!(%notification_id, kind, attempts, outcome = outcome.name(), why, "a notification was not delivered");
        }
        Outcome::Retry(_, why) => {
            tracing::warn!(%notification_id, kind, attempts, why, "a notification is delivered again later");
        }
        Outcome::Limited => {
            tracing::warn!(%notification_id, kind, "a notification waits, as its user got too many within an hour");
        }
    }
}

pub(crate) async fn measure_behind(service: Arc<Service>) -> Result<Did, Unexpected> {
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
    Ok(Did::Nothing)
}
