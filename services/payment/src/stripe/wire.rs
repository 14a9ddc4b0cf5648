//! Responses of the provider, as far as we read them, and whether they are about the request.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::budget::Deferred;

/// Twice the size of a hundred intents with their charges and some refunds of each.
const MAX_BODY: usize = 2 << 20;

/// A payment intent, as far as we read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) amount: i64,
    #[serde(default)]
    pub(crate) amount_received: i64,
    pub(crate) last_payment_error: Option<Box<Failure>>,
    latest_charge: Option<Charge>,
    #[serde(default, deserialize_with = "null_is_none")]
    metadata: HashMap<String, String>,
}

/// For what Stripe's schema allows to be null and we read as nothing.
fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// What an intent did to the card: its name, or if it was asked for, all of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Charge {
    Expanded {
        status: String,
        #[serde(default)]
        amount_refunded: i64,
        #[serde(default)]
        disputed: bool,
        refunds: Option<Page>,
    },
    Named(String),
}

impl Intent {
    /// The order that it is for, if it is one of ours.
    pub(crate) fn order_id(&self) -> Option<Uuid> {
        self.metadata.get("order_id").and_then(|id| Uuid::parse_str(id).ok())
    }

    /// Its refunds, if they were asked for and there are no more of them.
    pub(crate) fn listed_refunds(&self) -> Option<&[Refund]> {
        match &self.latest_charge {
            Some(Charge::Expanded { refunds: Some(page), .. }) if !page.has_more => Some(&page.data),
            _ => None,
        }
    }

    /// Whether the amount was ever authorized. Known from [`Stripe::get`].
    pub(crate) fn was_authorized(&self) -> bool {
        matches!(&self.latest_charge, Some(Charge::Expanded { status, .. }) if status == "succeeded")
    }

    /// Whether the charge has been disputed. Known from [`Stripe::get`].
    pub(crate) fn is_disputed(&self) -> bool {
        matches!(self.latest_charge, Some(Charge::Expanded { disputed: true, .. }))
    }

    /// The refunded amount, pending refunds included. The provider also counts what a partial capture released as refunded, which
    /// is subtracted.
    pub(crate) fn refunded(&self) -> i64 {
        match &self.latest_charge {
            Some(Charge::Expanded { amount_refunded, .. }) if self.status == Status::Succeeded => {
                amount_refunded - (self.amount - self.amount_received)
            }
            _ => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) amount: i64,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) status: RefundStatus,
    failure_reason: Option<String>,
    payment_intent: Option<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    metadata: HashMap<String, String>,
}

impl Refund {
    /// Whether its amount went back, or is about to: it is a part of what [`Intent::refunded`] says.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.status, RefundStatus::Succeeded | RefundStatus::UnderWay)
    }

    /// The code for why it failed.
    pub(crate) fn why(&self) -> &str {
        self.failure_reason.as_deref().unwrap_or(if self.status == RefundStatus::Canceled {
            "canceled"
        } else {
            "unknown"
        })
    }

    /// Whether it says itself that it belongs to this intent.
    pub(crate) fn names(&self, intent_id: &str) -> bool {
        self.payment_intent.as_deref() == Some(intent_id)
    }

    /// Whether it is the one that we call so.
    pub(crate) fn is(&self, refund_id: Uuid) -> bool {
        self.metadata.get("refund_id").is_some_and(|ours| *ours == refund_id.to_string())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Succeeded,
    Failed,
    Canceled,
    /// Pending, or waiting for an action of the customer, or not known to the provider yet.
    #[default]
    #[serde(other)]
    UnderWay,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Refund>,
    pub(super) has_more: bool,
}

/// What a call was about. A response about something else counts as none: a proxy may deliver one twice, and the second
/// then arrives as the response to the next request of the connection.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// An intent that has no name yet.
    Payment(&'a str),
    Intent(&'a str),
    /// A refund that has no name yet, of an intent.
    Refund(Uuid, &'a str),
    RefundNamed(&'a str),
    /// Everything that was created in some seconds.
    Created(&'a Range<u64>),
}

pub(super) trait Subject {
    fn is(&self, about: About<'_>) -> bool;
}

impl Subject for Intent {
    fn is(&self, about: About<'_>) -> bool {
        match about {
            About::Payment(payment_id) => self.metadata.get("payment_id").is_some_and(|ours| ours == payment_id),
            About::Intent(intent_id) | About::Refund(_, intent_id) => self.id == intent_id,
            About::RefundNamed(_) | About::Created(_) => true,
        }
    }
}

impl Subject for Refund {
    fn is(&self, about: About<'_>) -> bool {
        match about {
            About::Refund(refund_id, _) => self.is(refund_id),
            About::RefundNamed(reference) => self.id == reference,
            // Without a name of its own it is one of those that were asked for.
            About::Intent(intent_id) => self.payment_intent.as_deref().is_none_or(|ours| ours == intent_id),
            About::Payment(_) | About::Created(_) => false,
        }
    }
}

impl Subject for Page {
    fn is(&self, about: About<'_>) -> bool {
        self.data.iter().all(|refund| Subject::is(refund, about))
    }
}

/// What an error of the provider says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Failure {
    r#type: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
    payment_intent: Option<Box<Intent>>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: Failure,
}

impl Failure {
    pub(crate) fn reason(&self) -> &'static str {
        match (self.code.as_deref(), self.decline_code.as_deref()) {
            (Some("authentication_required"), _) | (_, Some("authentication_required")) => "AUTHENTICATION_REQUIRED",
            (_, Some("insufficient_funds")) => "INSUFFICIENT_FUNDS",
            _ => "CARD_DECLINED",
        }
    }
}

/// The provider's response to a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Response<T> {
    Done(T),
    /// The card, or the payment method, was refused.
    Declined(&'static str),
    /// The intent is in a state that does not allow the call.
    OtherState(Intent),
    /// The request was refused, with a code such as `amount_too_small`. Nothing was done.
    Refused(String),
}

/// Why a call has no response.
pub(super) enum WireError {
    /// No response arrived.
    NoResponse(String),
    /// The provider responded with an error of its own, which it may have stored under the key.
    ErrorResponse(String),
    /// The provider refused to begin, for its limits; `all_calls`: the next call would be refused, too.
    RateLimited {
        why: String,
        all_calls: bool,
        retry_after: Option<Duration>,
    },
    NotSent(Deferred),
}

impl WireError {
    pub(super) fn no_response(why: impl ToString) -> Self {
        Self::NoResponse(why.to_string())
    }

    fn about_something_else() -> Self {
        Self::no_response("the response is about something else")
    }

    fn error_response(why: impl ToString) -> Self {
        Self::ErrorResponse(why.to_string())
    }

    /// A rate limit is named in a header. A lock timeout concerns only the object of the call.
    fn rate_limited(status: StatusCode, headers: &HeaderMap, code: &str) -> Option<Self> {
        if status != StatusCode::TOO_MANY_REQUESTS && !(status.is_client_error() && code == "rate_limit") {
            return None;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let limiter = text("stripe-rate-limited-reason");
        let all_calls = limiter.is_some() || code != "lock_timeout";
        let retry_after = text("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let why = format!("HTTP {status}, {code} {}", limiter.unwrap_or_default());
        Some(Self::RateLimited { why, all_calls, retry_after })
    }
}

pub(super) async fn read<T: Subject + DeserializeOwned>(
    mut response: reqwest::Response,
    about: About<'_>,
) -> Result<Response<T>, WireError> {
    let (status, headers, mut body) = (response.status(), response.headers().clone(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| WireError::no_response(error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Err(WireError::error_response("the response is too large"));
        }
    }
    if status.is_success() {
        let subject: T = serde_json::from_slice(&body)
            .map_err(|error| WireError::error_response(format!("the response cannot be parsed: {error}")))?;
        return if subject.is(about) { Ok(Response::Done(subject)) } else { Err(WireError::about_something_else()) };
    }
    let failure = serde_json::from_slice::<ErrorBody>(&body);
    let code = failure.as_ref().ok().and_then(|body| body.error.code.as_deref()).unwrap_or_default();
    if let Some(rate_limited) = WireError::rate_limited(status, &headers, code) {
        return Err(rate_limited);
    }
    let failure = failure.map_err(|_| WireError::error_response(format!("HTTP {status}")))?.error;
    if failure.payment_intent.as_ref().is_some_and(|intent| !intent.is(about)) {
        return Err(WireError::about_something_else());
    }
    let (error_type, code) = (failure.r#type.as_deref().unwrap_or_default(), failure.code.clone().unwrap_or_default());
    if status == StatusCode::PAYMENT_REQUIRED && error_type == "card_error" {
        return Ok(Response::Declined(failure.reason()));
    }
    if failure.param.as_deref() == Some("payment_method") && status.is_client_error() {
        return Ok(Response::Declined("PAYMENT_METHOD_INVALID"));
    }
    let about_us =
        matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) && error_type == "invalid_request_error";
    match failure.payment_intent {
        // What stands in the way may be something else than its state, such as that nothing is left to refund.
        Some(intent) if about_us && code == "payment_intent_unexpected_state" => Ok(Response::OtherState(*intent)),
        _ if about_us => Ok(Response::Refused(code)),
        _ => Err(WireError::error_response(format!("HTTP {status}, {error_type} {code}"))),
    }
}
