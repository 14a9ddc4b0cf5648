//! The payment provider: Stripe's wire API. An answer is something the provider said; everything else (a timeout, a lost
//! connection, an error of its own) leaves open whether the call had its effect, and is never taken for a no.

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
}

/// Nobody knows whether the call had its effect.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: the outcome is unknown: {why}")]
pub(crate) struct Unknown {
    operation: &'static str,
    why: String,
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
        self.send("capture", self.post(&format!("/v1/payment_intents/{intent_id}/capture"), key)).await
    }

    pub(crate) async fn cancel(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        self.send("cancel", self.post(&format!("/v1/payment_intents/{intent_id}/cancel"), key)).await
    }

    pub(crate) async fn get(&self, intent_id: &str) -> Result<Answer<Intent>, Unknown> {
        self.send("get", self.call(Method::GET, &format!("/v1/payment_intents/{intent_id}"))).await
    }

    pub(crate) async fn refund(&self, key: &str, intent_id: &str, minor: i64) -> Result<Answer<Refund>, Unknown> {
        let form = [("payment_intent", intent_id.to_owned()), ("amount", minor.to_string())];
        self.send("refund", self.post("/v1/refunds", key).form(&form)).await
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
        let answer = self.ask(request).await.map_err(|why| Unknown { operation, why });
        let outcome = match &answer {
            Ok(Answer::Done(_)) => "done",
            Ok(Answer::Declined(_)) => "declined",
            Ok(Answer::Elsewhere(_)) => "elsewhere",
            Err(_) => "unknown",
        };
        CALLS.get_or_create(&Call { operation, outcome }).inc();
        answer
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, request: RequestBuilder) -> Result<Answer<T>, String> {
        let request = request.build().map_err(|error| error.without_url().to_string())?;
        let response = self.guarded.clone().oneshot(request).await.map_err(|error| match error {
            CircuitBreakerError::OpenCircuit => "it was not asked, as it fails each time".to_owned(),
            CircuitBreakerError::Inner(error) => error.without_url().to_string(),
        })?;
        read(response).await
    }
}

/// Whether it did not answer, or only that it cannot.
fn is_away(answer: &Result<reqwest::Response, reqwest::Error>) -> bool {
    answer.as_ref().map_or(true, |answer| answer.status().is_server_error())
}

async fn read<T: for<'de> Deserialize<'de>>(mut response: reqwest::Response) -> Result<Answer<T>, String> {
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err("the answer is too large".to_owned());
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map(Answer::Done).map_err(|error| format!("an odd answer: {error}"));
    }
    let failure = serde_json::from_slice::<ErrorBody>(&body).map_err(|_| format!("HTTP {status}"))?.error;
    if status == StatusCode::PAYMENT_REQUIRED && failure.r#type.as_deref() == Some("card_error") {
        return Ok(Answer::Declined(failure.reason()));
    }
    if failure.param.as_deref() == Some("payment_method") && status.is_client_error() {
        return Ok(Answer::Declined("PAYMENT_METHOD_INVALID"));
    }
    match failure.payment_intent {
        Some(intent) if status == StatusCode::BAD_REQUEST => Ok(Answer::Elsewhere(*intent)),
        _ => Err(format!("HTTP {status}, {}", failure.code.unwrap_or_default())),
    }
}
