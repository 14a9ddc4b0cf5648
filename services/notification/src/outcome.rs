//! What becomes of attempts to deliver notifications, and for how long they are repeated.

use std::sync::LazyLock;
use std::time::Duration;

use chassis::Backoff;
use chassis::boot::metrics::{self, ByOutcome};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use time::OffsetDateTime;

use crate::availability::Seen;
use crate::claim::Claimed;
use crate::kind::State;
use crate::service::Service;

/// How many attempts of a notification may end without a reply: each may have been a delivery.
const UNKNOWN_OUTCOMES: i32 = 3;

static DELIVERIES: LazyLock<Family<ByOutcome, Counter>> = LazyLock::new(|| {
    metrics::register("notification_deliveries", "Attempts to deliver notifications, by outcome", Family::default())
});

/// Why a message was not accepted. None has the text of a reply, which may have the address.
#[derive(Debug, PartialEq)]
pub(crate) enum SendError {
    /// For good.
    Refused(String),
    /// For good, and so is any other mail to this address.
    AddressRefused(String),
    /// It may be accepted later.
    Failed(RetryReason, String),
}

impl SendError {
    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::Failed(RetryReason::ServerUnavailable, why.into())
    }
}

/// Why there is another attempt, which says when, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// A server does not work, for any message. It has not got this one.
    ServerUnavailable,
    /// A server replied that it does not accept this message now.
    NotAccepted,
    /// Nothing was sent, because of us.
    NotSent,
    /// The message was handed over, and there was no reply: it may have been accepted.
    OutcomeUnknown,
}

impl RetryReason {
    /// The wait after so many attempts, of which so many ended without a reply.
    pub(crate) fn wait(self, attempts: u32, unknown: u32) -> Duration {
        match self {
            // Short, so that all waiting messages are delivered soon after the server is available.
            Self::ServerUnavailable => {
                Backoff::new(Duration::from_millis(500), Duration::from_secs(30)).after(attempts)
            }
            Self::NotAccepted | Self::NotSent => {
                Backoff::new(Duration::from_secs(30), Duration::from_secs(900)).after(attempts)
            }
            // Once, a connection broke. Twice, the server has a problem that takes somebody's time, and there are few attempts.
            Self::OutcomeUnknown if unknown <= 1 => {
                Backoff::new(Duration::from_secs(15), Duration::from_secs(30)).after(1)
            }
            Self::OutcomeUnknown => Backoff::new(Duration::from_secs(3_600), Duration::from_secs(7_200)).after(1),
        }
    }
}

/// What became of an attempt. Its text never has an address: replies of mail servers may, and are not kept.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Ended(State, String),
    /// The notification is refused; the user service marks the address.
    AddressRefused(String),
    Retry(RetryReason, String),
    /// Its user, or its phone number, got too many within an hour: nothing was attempted, and there is room at this time.
    Limited(OffsetDateTime),
}

impl From<Result<(), SendError>> for Outcome {
    fn from(sent: Result<(), SendError>) -> Self {
        match sent {
            Ok(()) => Self::Ended(State::Delivered, String::new()),
            Err(SendError::Refused(why)) => Self::Ended(State::Refused, why),
            Err(SendError::AddressRefused(why)) => Self::AddressRefused(why),
            Err(SendError::Failed(reason, why)) => Self::Retry(reason, why),
        }
    }
}

impl Outcome {
    /// A delivery that failed for too long, or that may have happened too often, is given up.
    pub(crate) fn or_give_up(self, service: &Service, claimed: &Claimed) -> Self {
        let is_over = service.clock.now() >= claimed.wanted_at + service.give_up_after;
        match self {
            Self::Retry(RetryReason::OutcomeUnknown, why) if claimed.unknown_outcomes + 1 >= UNKNOWN_OUTCOMES => {
                Self::Ended(State::GivenUp, why)
            }
            Self::Retry(_, why) if is_over => Self::Ended(State::GivenUp, why),
            Self::Limited(_) if is_over => Self::Ended(State::GivenUp, "too many wait for their turn".to_owned()),
            outcome => outcome,
        }
    }

    /// What it says of the server of the channel.
    pub(crate) fn seen(&self) -> Seen {
        match self {
            Self::Ended(State::Delivered, _) | Self::AddressRefused(_) | Self::Retry(RetryReason::NotAccepted, _) => {
                Seen::Works
            }
            Self::Retry(RetryReason::ServerUnavailable, _) => Seen::IsAway,
            Self::Retry(RetryReason::OutcomeUnknown, _) => Seen::Unanswered,
            Self::Ended(..) | Self::Limited(_) => Seen::NoEvidence,
            Self::Retry(RetryReason::NotSent, _) => Seen::NotReached,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ended(state, _) => state.name(),
            Self::AddressRefused(_) => State::Refused.name(),
            Self::Retry(..) => "RETRY",
            Self::Limited(_) => "LIMITED",
        }
    }

    pub(crate) fn log(&self, claimed: &Claimed) {
        DELIVERIES.get_or_create(&ByOutcome::new(self.name())).inc();
        let (notification_id, kind, attempts) = (claimed.notification_id, claimed.kind.name(), claimed.attempts);
        match self {
            Self::Ended(State::Delivered | State::Dropped, _) => {
                tracing::debug!(%notification_id, kind, attempts, outcome = self.name(), "a notification has ended");
            }
            Self::Ended(_, why) | Self::AddressRefused(why) => {
                tracing::warn!(%notification_id, kind, attempts, outcome = self.name(), why, "a notification was not delivered");
            }
            Self::Retry(_, why) => {
                tracing::warn!(%notification_id, kind, attempts, why, "a notification is delivered again later");
            }
            Self::Limited(until) => {
                tracing::warn!(%notification_id, kind, %until, "a notification waits, as its user got too many within an hour");
            }
        }
    }
}
