//! The payment provider: Stripe's wire API. A [`Response`] tells the outcome of a call. After a timeout, a lost connection or
//! an error of the provider itself the outcome is unknown, which is never taken for a refusal. A call that the provider's rate
//! limits refused (429), or that was not sent because of ours, had no effect.

mod list;
mod wire;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::boot::metrics;
use chassis::rpc::breaker::Breaker;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::budget::{Budget, Deferred};
use wire::{About, Page, Subject, WireError, read};
pub(crate) use wire::{Intent, Refund, RefundStatus, Response, Status};

/// A form without fields, which is still one.
const NOTHING: [(&str, &str); 0] = [];

/// What ids consist of.
const OF_IDS: AsciiSet = NON_ALPHANUMERIC.remove(b'_');

/// An id in a path or in a query: it cannot be anything but one segment or value.
fn encode(id: &str) -> PercentEncode<'_> {
    utf8_percent_encode(id, &OF_IDS)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    outcome: &'static str,
}

static CALLS: LazyLock<Family<CallLabels, Counter>> =
    LazyLock::new(|| metrics::register("provider_calls", "Calls to the payment provider", Family::default()));

pub(crate) struct Stripe {
    client: reqwest::Client,
    breaker: Arc<Breaker>,
    url: String,
    key: SecretString,
    pub(crate) budget: Budget,
}

/// Why a call has no response: its effect is unknown, or it had none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
    #[error(transparent)]
    NotSent(#[from] NotSent),
}

/// The call was not sent, or refused for rate limits: it had no effect.
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
    /// Whether the provider responded with an error that it may have stored under the key.
    pub(crate) error_may_be_stored: bool,
}

impl OutcomeUnknown {
    /// The provider responded, but the response leaves the outcome open.
    pub(crate) fn undecided(operation: &'static str, why: String) -> Self {
        Self { operation, why, error_may_be_stored: false }
    }
}

impl Stripe {
    pub(crate) fn new(url: &str, key: &str, timeout: Duration, budget: Budget) -> Result<Self, String> {
        let builder = reqwest::Client::builder().timeout(timeout).connect_timeout(Duration::from_secs(2));
        // The provider has none, and one would take the call, and its key, to another server.
        let builder = builder.redirect(Policy::none());
        let client = builder.pool_max_idle_per_host(64).build().map_err(|error| error.to_string())?;
        let url = reqwest::Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))?;
        let (url, key) = (url.as_str().trim_end_matches('/').to_owned(), key.trim().into());
        Ok(Self { client, breaker: Breaker::new("provider", &url), url, key, budget })
    }

    /// Creates an intent without confirming it, which moves no money.
    pub(crate) async fn create(
        &self,
        key: &str,
        amount: (i64, &str),
        payment_method: &str,
        (payment_id, order_id): (&str, &str),
    ) -> Result<Response<Intent>, CallError> {
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

    /// Authorizes the amount. A step that the cardholder would have to take is a decline: the cardholder is not present.
    pub(crate) async fn confirm(&self, key: &str, intent_id: &str) -> Result<Response<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{}/confirm", encode(intent_id)), key);
        let request = request.form(&[("error_on_requires_action", "true")]);
        self.send("confirm", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn capture(&self, key: &str, intent_id: &str) -> Result<Response<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{}/capture", encode(intent_id)), key).form(&NOTHING);
        self.send("capture", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn cancel(&self, key: &str, intent_id: &str) -> Result<Response<Intent>, CallError> {
        let request = self.post(&format!("/v1/payment_intents/{}/cancel", encode(intent_id)), key).form(&NOTHING);
        self.send("cancel", request, About::Intent(intent_id)).await
    }

    pub(crate) async fn get(&self, intent_id: &str) -> Result<Response<Intent>, CallError> {
        let path = format!("/v1/payment_intents/{}?expand%5B%5D=latest_charge", encode(intent_id));
        self.send("get", self.call(Method::GET, &path), About::Intent(intent_id)).await
    }

    pub(crate) async fn refund(
        &self,
        key: &str,
        intent_id: &str,
        minor: i64,
        refund_id: Uuid,
    ) -> Result<Response<Refund>, CallError> {
        let form = [
            ("payment_intent", intent_id.to_owned()),
            ("amount", minor.to_string()),
            ("metadata[refund_id]", refund_id.to_string()),
        ];
        let request = self.post("/v1/refunds", key).form(&form);
        self.send("refund", request, About::Refund(refund_id, intent_id)).await
    }

    pub(crate) async fn get_refund(&self, reference: &str) -> Result<Response<Refund>, CallError> {
        let request = self.call(Method::GET, &format!("/v1/refunds/{}", encode(reference)));
        self.send("get_refund", request, About::RefundNamed(reference)).await
    }

    /// All refunds of an intent.
    pub(crate) async fn list_refunds(&self, intent_id: &str) -> Result<Response<Vec<Refund>>, CallError> {
        let mut refunds = Vec::<Refund>::new();
        loop {
            let after = refunds.last().map_or_else(String::new, |last| format!("&starting_after={}", encode(&last.id)));
            let path = format!("/v1/refunds?payment_intent={}&limit=100{after}", encode(intent_id));
            let request = self.call(Method::GET, &path);
            let page: Page = match self.send("list_refunds", request, About::Intent(intent_id)).await? {
                Response::Done(page) => page,
                Response::Declined(reason) => return Ok(Response::Declined(reason)),
                Response::OtherState(intent) => return Ok(Response::OtherState(intent)),
                Response::Refused(code) => return Ok(Response::Refused(code)),
            };
            let more = page.has_more && !page.data.is_empty();
            refunds.extend(page.data);
            if !more {
                return Ok(Response::Done(refunds));
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
    ) -> Result<Response<T>, CallError> {
        let response = self.ask(request, about).await;
        let outcome = match &response {
            Ok(Response::Done(_)) => "done",
            Ok(Response::Declined(_)) => "declined",
            Ok(Response::OtherState(_)) => "other_state",
            Ok(Response::Refused(_)) => "refused",
            Err(WireError::NoResponse(_) | WireError::ErrorResponse(_)) => "unknown",
            Err(WireError::RateLimited { .. }) => "limited",
            Err(WireError::NotSent(_)) => "not_sent",
        };
        CALLS.get_or_create(&CallLabels { operation, outcome }).inc();
        let writes = !operation.starts_with("get") && !operation.starts_with("list");
        match response {
            Ok(response) => Ok(response),
            Err(WireError::NoResponse(why)) => {
                Err(OutcomeUnknown { operation, why, error_may_be_stored: false }.into())
            }
            Err(WireError::ErrorResponse(why)) => {
                Err(OutcomeUnknown { operation, why, error_may_be_stored: true }.into())
            }
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
    ) -> Result<Response<T>, WireError> {
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
