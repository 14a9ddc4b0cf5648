//! The payment provider: Stripe's wire API. An answer is something the provider said; everything else (a timeout, a lost
//! connection, an error of its own) leaves open whether the call had its effect, and is never taken for a no. A call that
//! its limits turned away (429), or ours before it was sent, had none.

mod list;
mod wire;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics;
use chassis::rpc::breaker::Breaker;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::budget::{Budget, Deferred};
use wire::{About, Page, Subject, WireError, read};
pub(crate) use wire::{Answer, Intent, Refund, RefundStatus, Status};

/// A form without fields, which is still one.
const NOTHING: [(&str, &str); 0] = [];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

static CALLS: LazyLock<Family<Call, Counter>> =
    LazyLock::new(|| metrics::register("provider_calls", "Calls to the payment provider", Family::default()));

pub(crate) struct Stripe {
    client: reqwest::Client,
    /// The provider is left alone while it fails each time.
    breaker: Arc<Breaker>,
    url: String,
    key: SecretString,
    pub(crate) budget: Budget,
}

/// Why a call has no answer. Nothing is known of its effect, or that it had none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
    #[error(transparent)]
    NotSent(#[from] NotSent),
}

/// The call was not made, or refused before it began: it had no effect.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {why}")]
pub(crate) struct NotSent {
    operation: &'static str,
    why: String,
    /// Whether it would have changed anything.
    pub(crate) writes: bool,
    /// After which time it may be made. None: it is not known.
    pub(crate) pause: Option<Duration>,
}

/// It is not known whether the call had its effect.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: the outcome is unknown: {why}")]
pub(crate) struct OutcomeUnknown {
    operation: &'static str,
    why: String,
    /// Whether the provider answered, with an error that it may keep under the key.
    pub(crate) answered: bool,
}

impl OutcomeUnknown {
    /// What is known only by what the provider did not say.
    pub(crate) fn new(operation: &'static str, why: String) -> Self {
        Self { operation, why, answered: false }
    }
}

impl Stripe {
    pub(crate) fn new(url: &str, key: &str, timeout: Duration, budget: Budget) -> Result<Self, String> {
        let builder = reqwest::Client::builder().timeout(timeout).connect_timeout(Duration::from_secs(2));
        let client = builder.pool_max_idle_per_host(64).build().map_err(|error| error.to_string())?;
        let url = reqwest::Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))?;
        let (url, key) = (url.as_str().trim_end_matches('/').to_owned(), key.trim().into());
        Ok(Self { client, breaker: Breaker::new("provider"), url, key, budget })
    }

    /// An intent that is not confirmed: it moves no money, and may be asked for as often as one likes.
    pub(crate) async fn create(
        &self,
        key: &str,
        amount: (i64, &str),
        payment_method: &str,
        (payment_id, order_id): (&str, &str),
    ) -> Result<Answer<Intent>, CallError> {
        let (minor, currency) = amount;
        let form = [
            ("amount", minor.to_string()),
            ("currency", currency.to_lowercase()),
            ("payment_method", payment_method.to_owned()),
            ("capture_method", "manual".to_owned()),
            ("payment_method_types[]", "card".to_owned()),
            ("metadata[payment_id]", payment_id.to_owned()),
            ("metadata[order_id]", order_id.to_owned()),
        ];
        let request = self.post("/v1/payment_intents", key).form(&form);
        self.send("create", request, About::Payment(payment_id)).await
    }

    /// Holds the amount. A step that the cardholder would have to take is a decline: the cardholder is not present.
    pub(crate) async fn confirm(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{intent_id}/confirm"), key);
        let request = request.form(&[("error_on_requires_action", "true")]);
        self.send("confirm", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn capture(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{intent_id}/capture"), key).form(&NOTHING);
        self.send("capture", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn cancel(&self, key: &str, intent_id: &str) -> Result<Answer<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{intent_id}/cancel"), key).form(&NOTHING);
        self.send("cancel", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn get(&self, intent_id: &str) -> Result<Answer<Intent>, CallError> {
        let path = format!("/v1/payment_intents/{intent_id}?expand%5B%5D=latest_charge");
        self.send("get", self.call(Method::GET, &path), About::Intent(intent_id)).await
    }

    pub(crate) async fn refund(
        &self,
        key: &str,
        intent_id: &str,
        minor: i64,
        refund_id: Uuid,
    ) -> Result<Answer<Refund>, CallError> {
        let form = [
            ("payment_intent", intent_id.to_owned()),
            ("amount", minor.to_string()),
            ("metadata[refund_id]", refund_id.to_string()),
        ];
        let request = self.post("/v1/refunds", key).form(&form);
        self.send("refund", request, About::Refund(refund_id, intent_id)).await
    }

    pub(crate) async fn get_refund(&self, reference: &str) -> Result<Answer<Refund>, CallError> {
        let request = self.call(Method::GET, &format!("/v1/refunds/{reference}"));
        self.send("get_refund", request, About::RefundNamed(reference)).await
    }

    /// All refunds of an intent.
    pub(crate) async fn list_refunds(&self, intent_id: &str) -> Result<Answer<Vec<Refund>>, CallError> {
        let mut refunds = Vec::<Refund>::new();
        loop {
            let after = refunds.last().map_or_else(String::new, |last| format!("&starting_after={}", last.id));
            let path = format!("/v1/refunds?payment_intent={intent_id}&limit=100{after}");
            let request = self.call(Method::GET, &path);
            let page: Page = match self.send("list_refunds", request, About::Intent(intent_id)).await? {
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
        request.bearer_auth(self.key.expose_secret()).header("stripe-version", "2025-03-31.basil")
    }

    async fn send<T: Subject + DeserializeOwned>(
        &self,
        operation: &'static str,
        request: RequestBuilder,
        about: About<'_>,
    ) -> Result<Answer<T>, CallError> {
        let answer = self.ask(request, about).await;
        let outcome = match &answer {
            Ok(Answer::Done(_)) => "done",
            Ok(Answer::Declined(_)) => "declined",
            Ok(Answer::Elsewhere(_)) => "elsewhere",
            Ok(Answer::Refused(_)) => "refused",
            Err(WireError::NoResponse(_) | WireError::ErrorResponse(_)) => "unknown",
            Err(WireError::RateLimited { .. }) => "limited",
            Err(WireError::NotSent(_)) => "unsent",
        };
        CALLS.get_or_create(&Call { operation, outcome }).inc();
        let writes = !operation.starts_with("get") && !operation.starts_with("list");
        match answer {
            Ok(answer) => Ok(answer),
            Err(WireError::NoResponse(why)) => Err(OutcomeUnknown { operation, why, answered: false }.into()),
            Err(WireError::ErrorResponse(why)) => Err(OutcomeUnknown { operation, why, answered: true }.into()),
            Err(WireError::NotSent(Deferred { why, pause })) => Err(NotSent { operation, why, writes, pause }.into()),
            Err(WireError::RateLimited { why, all_calls, retry_after }) => {
                let pause = if all_calls { self.budget.pause(retry_after).await.ok() } else { retry_after };
                Err(NotSent { operation, why, writes, pause }.into())
            }
        }
    }

    async fn ask<T: Subject + DeserializeOwned>(
        &self,
        request: RequestBuilder,
        about: About<'_>,
    ) -> Result<Answer<T>, WireError> {
        let request = request.build().map_err(|error| WireError::no_response(error.without_url()))?;
        self.budget.take().await.map_err(WireError::NotSent)?;
        // No customer waits for this: what ends by the client's timeout is the provider's failure.
        let attempt = self.breaker.begin(Duration::MAX);
        let attempt = attempt.map_err(|left| WireError::NotSent(Deferred { why: left.to_string(), pause: None }))?;
        let response = self.client.execute(request).await;
        match &response {
            Ok(response) if !response.status().is_server_error() => attempt.succeeded(),
            Ok(_) | Err(_) => attempt.failed(),
        }
        let response = response.map_err(|error| WireError::no_response(error.without_url()))?;
        read(response, about).await
    }
}
