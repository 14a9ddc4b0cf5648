//! The payment provider: Stripe's wire API. An answer is something the provider said; everything else (a timeout, a lost
//! connection, an error of its own) leaves open whether the call had its effect, and is never taken for a no.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use chassis::breaker::{self, CircuitBreakerError, Guarded};
use chassis::metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use tower::ServiceExt;
use uuid::Uuid;

/// A form without fields, which is still one.
const NOTHING: [(&str, &str); 0] = [];
const MAX_ANSWER: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

static CALLS: LazyLock<Family<Call, Counter>> =
    LazyLock::new(|| metrics::register("provider_calls", "Calls to the payment provider", Family::default()));

pub(crate) struct Stripe {
    client: reqwest::Client,
    /// The same client, left alone while the provider fails each time.
    guarded: Guarded<reqwest::Client, reqwest::Response, reqwest::Error>,
    url: String,
    key: String,
}

/// A payment intent, as far as we read it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) amount_received: i64,
    pub(crate) last_payment_error: Option<Failure>,
    latest_charge: Option<Charge>,
}

/// What an intent did to the card: its name, or if it was asked for, all of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Charge {
    Expanded {
        status: String,
        #[serde(default)]
        amount_refunded: i64,
    },
    Named(String),
}

impl Intent {
    /// Whether the card was ever charged, if only to hold the amount. Told by what [`Stripe::get`] says.
    pub(crate) fn was_held(&self) -> bool {
        matches!(&self.latest_charge, Some(Charge::Expanded { status, .. }) if status == "succeeded")
    }

    /// What went back of what was captured, pending refunds included.
    pub(crate) fn refunded(&self) -> i64 {
        match &self.latest_charge {
            Some(Charge::Expanded { amount_refunded, .. }) if self.status == Status::Succeeded => *amount_refunded,
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
    pub(crate) status: RefundStatus,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl Refund {
    /// Whether it is the one that we call so.
    pub(crate) fn is(&self, refund_id: Uuid) -> bool {
        self.metadata.get("refund_id").is_some_and(|ours| *ours == refund_id.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Succeeded,
    Failed,
    Canceled,
    /// Pending, or waiting for somebody.
    #[serde(other)]
    UnderWay,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Refund>,
    has_more: bool,
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

/// What the provider said.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer<T> {
    Done(T),
    /// The card, or the method, was refused: a definite no.
    Declined(&'static str),
    /// The intent is in a state that does not allow the call: it says which.
    Elsewhere(Intent),
    /// The request was refused, with a code such as `amount_too_small`. Nothing was done.
    Refused(String),
}

/// Nobody knows whether the call had its effect.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: the outcome is unknown: {why}")]
pub(crate) struct Unknown {
    operation: &'static str,
    why: String,
    /// Whether the provider answered, with an error that it may keep under the key.
    pub(crate) answered: bool,
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

impl Stripe {
    pub(crate) fn new(url: &str, key: &str, timeout: Duration) -> Result<Self, String> {
        let builder = reqwest::Client::builder().timeout(timeout).connect_timeout(Duration::from_secs(2));
        let client = builder.pool_max_idle_per_host(64).build().map_err(|error| error.to_string())?;
        let url = reqwest::Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))?;
        let guarded = breaker::guard("provider", client.clone(), is_away as _);
        Ok(Self { client, guarded, url: url.as_str().trim_end_matches('/').to_owned(), key: key.trim().to_owned() })
    }

    /// An intent that is not confirmed: it moves no money, and may be asked for as often as one likes.
    pub(crate) async fn create(
        &self,
        key: &str,
        amount: (i64, &str),
        payment_method: &str,
        metadata: [(&str, &str); 2],
    ) -> Result<Answer<Intent>, Unknown> {
        let (minor, currency) = amount;
        let form = [
            ("amount", minor.to_string()),
            ("currency", currency.to_lowercase()),
            ("payment_method", payment_method.to_owned()),
            ("capture_method", "manual".to_owned()),
            ("payment_method_types[]", "card".to_owned()),
            (metadata[0].0, metadata[0].1.to_owned()),
            (metadata[1].0, metadata[1].1.to_owned()),
        ];
        self.send("create", self.post("/v1/payment_intents", key).form(&form)).await
    }

    /// Holds the amount. A step that the cardholder would have to take is a decline: nobody is there to take it.
    pub(crate) async fn confirm(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        let path = format!("/v1/payment_intents/{intent_id}/confirm");
        self.send("confirm", self.post(&path, key).form(&[("error_on_requires_action", "true")])).await
    }

    pub(crate) async fn capture(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        self.send("capture", self.post(&format!("/v1/payment_intents/{intent_id}/capture"), key).form(&NOTHING)).await
    }

    pub(crate) async fn cancel(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        self.send("cancel", self.post(&format!("/v1/payment_intents/{intent_id}/cancel"), key).form(&NOTHING)).await
    }

    pub(crate) async fn get(&self, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        let path = format!("/v1/payment_intents/{intent_id}?expand%5B%5D=latest_charge");
        self.send("get", self.call(Method::GET, &path)).await
    }

    pub(crate) async fn refund(
        &self,
        key: &str,
        intent_id: &str,
        minor: i64,
        refund_id: Uuid,
    ) -> Result<Answer<Refund>, Unknown> {
        let form = [
            ("payment_intent", intent_id.to_owned()),
            ("amount", minor.to_string()),
            ("metadata[refund_id]", refund_id.to_string()),
        ];
        self.send("refund", self.post("/v1/refunds", key).form(&form)).await
    }

    pub(crate) async fn get_refund(&self, reference: &str) -> Result<Answer<Refund>, Unknown> {
        self.send("get_refund", self.call(Method::GET, &format!("/v1/refunds/{reference}"))).await
    }

    /// All refunds of an intent.
    pub(crate) async fn list_refunds(&self, intent_id: &str) -> Result<Answer<Vec<Refund>>, Unknown> {
        let mut refunds = Vec::<Refund>::new();
        loop {
            let after = refunds.last().map_or_else(String::new, |last| format!("&starting_after={}", last.id));
            let path = format!("/v1/refunds?payment_intent={intent_id}&limit=100{after}");
            let page: Page = match self.send("list_refunds", self.call(Method::GET, &path)).await? {
                Answer::Done(page) => page,
                Answer::Declined(reason) => return Ok(Answer::Declined(reason)),
                Answer::Elsewhere(intent) => return Ok(Answer::Elsewhere(intent)),
                Answer::Refused(code) => return Ok(Answer::Refused(code)),
            };
            let more = page.has_more && !page.data.is_empty();
            refunds.extend(page.data);
            if !more {
                return Ok(Answer::Done(refunds));
            }
        }
    }

    fn post(&self, path: &str, key: &str) -> RequestBuilder {
        self.call(Method::POST, path).header("idempotency-key", key)
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.key).header("stripe-version", "2025-03-31.basil")
    }

    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        operation: &'static str,
        request: RequestBuilder,
    ) -> Result<Answer<T>, Unknown> {
        let answer = self.ask(request).await;
        let answer = answer.map_err(|Lost { why, answered }| Unknown { operation, why, answered });
        let outcome = match &answer {
            Ok(Answer::Done(_)) => "done",
            Ok(Answer::Declined(_)) => "declined",
            Ok(Answer::Elsewhere(_)) => "elsewhere",
            Ok(Answer::Refused(_)) => "refused",
            Err(_) => "unknown",
        };
        CALLS.get_or_create(&Call { operation, outcome }).inc();
        answer
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, request: RequestBuilder) -> Result<Answer<T>, Lost> {
        let request = request.build().map_err(|error| Lost::silent(error.without_url()))?;
        let response = self.guarded.clone().oneshot(request).await.map_err(|error| match error {
            CircuitBreakerError::OpenCircuit => Lost::silent("it was not asked, as it fails each time"),
            CircuitBreakerError::Inner(error) => Lost::silent(error.without_url()),
        })?;
        read(response).await
    }
}

/// Why there is no answer that says anything.
struct Lost {
    why: String,
    answered: bool,
}

impl Lost {
    fn silent(why: impl ToString) -> Self {
        Self { why: why.to_string(), answered: false }
    }

    fn answered(why: impl ToString) -> Self {
        Self { why: why.to_string(), answered: true }
    }
}

/// Whether it did not answer, or only that it cannot.
fn is_away(answer: &Result<reqwest::Response, reqwest::Error>) -> bool {
    answer.as_ref().map_or(true, |answer| answer.status().is_server_error())
}

async fn read<T: for<'de> Deserialize<'de>>(mut response: reqwest::Response) -> Result<Answer<T>, Lost> {
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| Lost::silent(error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(Lost::answered("the answer is too large"));
        }
    }
    if status.is_success() {
        let answer = serde_json::from_slice(&body).map(Answer::Done);
        return answer.map_err(|error| Lost::answered(format!("an odd answer: {error}")));
    }
    let failure = serde_json::from_slice::<ErrorBody>(&body);
    let failure = failure.map_err(|_| Lost::answered(format!("HTTP {status}")))?.error;
    let (kind, code) = (failure.r#type.as_deref().unwrap_or_default(), failure.code.clone().unwrap_or_default());
    if status == StatusCode::PAYMENT_REQUIRED && kind == "card_error" {
        return Ok(Answer::Declined(failure.reason()));
    }
    if failure.param.as_deref() == Some("payment_method") && status.is_client_error() {
        return Ok(Answer::Declined("PAYMENT_METHOD_INVALID"));
    }
    let about_us = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) && kind == "invalid_request_error";
    match failure.payment_intent {
        // What stands in the way may be something else than its state, such as that nothing is left to give back.
        Some(intent) if about_us && code == "payment_intent_unexpected_state" => Ok(Answer::Elsewhere(*intent)),
        _ if about_us => Ok(Answer::Refused(code)),
        _ => Err(Lost::answered(format!("HTTP {status}, {kind} {code}"))),
    }
}
