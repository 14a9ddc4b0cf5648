//! Webhooks, as Stripe sends them: signed, usually at least once, in any order. After [`TRIES`] failures a webhook is dropped,
//! so an endpoint must not rely on receiving every event.

use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use backon::{BackoffBuilder, ExponentialBuilder};
use hmac::{Hmac, KeyInit, Mac};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::intent::{Intent, Status};
use crate::ledger::now;
use crate::refund::{Refund, RefundStatus};

/// The event types that `souk payment --help` recommends to subscribe to.
pub const SUBSCRIBED: [&str; 8] = [
    "charge.dispute.closed",
    "charge.dispute.created",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.succeeded",
    "refund.created",
    "refund.failed",
    "refund.updated",
];

/// How many webhooks may wait; more are dropped.
const WAITING: usize = 10_000;
const AT_ONCE: usize = 16;
const TRIES: usize = 6;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How webhooks are delivered, see [`crate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) delay: Duration,
    /// How often each webhook is delivered.
    pub(crate) times: u32,
    /// Whether webhooks that wait together are sent in reverse order.
    pub(crate) reversed: bool,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery { delay: Duration::ZERO, times: 1, reversed: false }
    }
}

#[derive(Clone)]
pub(crate) struct Webhooks {
    queue: mpsc::Sender<Value>,
    /// The event types to send. Empty: all.
    subscribed: Arc<[String]>,
    delivery: Arc<Mutex<Delivery>>,
}

impl Webhooks {
    pub(crate) fn send_to(url: String, secret: String, subscribed: Vec<String>) -> Webhooks {
        let (queue, events) = mpsc::channel(WAITING);
        let delivery = Arc::new(Mutex::new(Delivery::default()));
        // Sent from another address than that of local customers, so as not to use up their rate limit at the edge.
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(IpAddr::from([127, 0, 0, 2])));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        tokio::spawn(send(Arc::new(Endpoint { url, secret, client }), events, delivery.clone()));
        Webhooks { queue, subscribed: subscribed.into(), delivery }
    }

    pub(crate) fn set_delivery(&self, delivery: Delivery) {
        *self.delivery.lock().expect("nothing panics while it holds this lock") = delivery;
    }

    /// Sends webhooks about a change: for each changed object, every event type that Stripe has for the change.
    pub(crate) fn publish(&self, change: &Change<'_>) {
        for (event_type, object) in change.events() {
            if self.subscribed.is_empty() || self.subscribed.iter().any(|subscribed| subscribed == event_type) {
                self.queue(event_type, &object, change.at);
            }
        }
    }

    fn queue(&self, event_type: &str, object: &Value, at: u64) {
        let event = json!({
            "id": format!("evt_{}", Uuid::now_v7().simple()),
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": at / 1_000,
            "data": {"object": object},
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": event_type,
        });
        if self.queue.try_send(event).is_err() {
            tracing::warn!("too many webhooks are waiting; a webhook was dropped");
        }
    }
}

/// The change that a call made.
pub(crate) struct Change<'a> {
    pub(crate) before: Option<&'a Intent>,
    pub(crate) after: &'a Intent,
    /// The refund that it created or changed, and its status before.
    pub(crate) refund: Option<(&'a Refund, Option<RefundStatus>)>,
    pub(crate) at: u64,
}

impl Change<'_> {
    fn events(&self) -> Vec<(&'static str, Value)> {
        let after = self.after;
        let became = |status| after.status == status && self.before.is_none_or(|before| before.status != status);
        let (was_authorized, was_captured) =
            self.before.map_or((0, 0), |before| (before.authorized.times, before.captured.times));
        let mut names = Vec::new();
        if self.before.is_none() {
            names.push("payment_intent.created");
        }
        if after.authorized.times > was_authorized {
            names.push("charge.succeeded");
        }
        if became(Status::RequiresCapture) {
            names.push("payment_intent.amount_capturable_updated");
        }
        if became(Status::RequiresAction) {
            names.push("payment_intent.requires_action");
        }
        if became(Status::RequiresPaymentMethod) && after.declined.is_some() {
            names.extend(["charge.failed", "payment_intent.payment_failed"]);
        }
        if after.captured.times > was_captured {
            // A charge that is captured when it is authorized has no `charge.captured`.
            names.extend((was_authorized > 0).then_some("charge.captured"));
            names.extend(["payment_intent.succeeded", "charge.updated"]);
            names.extend(after.is_disputed().then_some("charge.dispute.created"));
        }
        if became(Status::Canceled) {
            names.push("payment_intent.canceled");
            // At Stripe, a released hold counts as refunded.
            names.extend((after.voided.times > 0).then_some("charge.refunded"));
        }
        let object = |name: &str| match name {
            "charge.dispute.created" => after.dispute_json(),
            _ if name.starts_with("charge.") => after.charge_json(),
            _ => after.to_json(),
        };
        let mut events: Vec<_> = names.into_iter().map(|name| (name, object(name))).collect();
        if let Some((refund, before)) = self.refund.filter(|(refund, before)| *before != Some(refund.status)) {
            let is_new = before.is_none();
            events.extend(is_new.then(|| ("charge.refunded", after.charge_json())));
            let mut names = Vec::from_iter(is_new.then_some("refund.created"));
            if !is_new || !refund.status.is_pending() {
                names.extend(["refund.updated", "charge.refund.updated"]);
            }
            names.extend((refund.status == RefundStatus::Failed).then_some("refund.failed"));
            events.extend(names.into_iter().map(|name| (name, refund.to_json(after))));
        }
        events
    }
}

/// The target of webhooks.
struct Endpoint {
    url: String,
    secret: String,
    client: Client<HttpConnector, Body>,
}

async fn send(endpoint: Arc<Endpoint>, mut events: mpsc::Receiver<Value>, delivery: Arc<Mutex<Delivery>>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut batch = Vec::new();
    while let Some(first) = events.recv().await {
        batch.push(first);
        let delivery = *delivery.lock().expect("nothing panics while it holds this lock");
        tokio::time::sleep(delivery.delay).await;
        while let Ok(next) = events.try_recv() {
            batch.push(next);
        }
        if delivery.reversed {
            batch.reverse();
        }
        for event in batch.drain(..) {
            for _ in 0..delivery.times {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                let (endpoint, body) = (endpoint.clone(), event.to_string());
                tokio::spawn(async move {
                    endpoint.deliver(body).await;
                    drop(permit);
                });
            }
        }
    }
}

impl Endpoint {
    /// Each try is signed anew, as the signature contains the time.
    async fn deliver(&self, body: String) {
        let backoff = ExponentialBuilder::new().with_min_delay(MIN_BACKOFF).with_max_times(TRIES).with_jitter();
        for (attempt, wait) in (1..).zip(backoff.build()) {
            let signature = sign(&self.secret, now() / 1_000, body.as_bytes());
            match tokio::time::timeout(RESPONSE_TIMEOUT, self.post(signature, body.clone())).await {
                Ok(Ok(status)) if status.is_success() => return,
                Ok(Ok(status)) => tracing::warn!(%status, attempt, "a webhook was refused"),
                Ok(Err(error)) => tracing::warn!(?error, attempt, "a webhook was not delivered"),
                Err(_) => tracing::warn!(attempt, "a webhook got no response within {RESPONSE_TIMEOUT:?}"),
            }
            tokio::time::sleep(wait).await;
        }
        tracing::error!(body, "a webhook was dropped after {TRIES} tries");
    }

    async fn post(&self, signature: String, body: String) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
        let request = Request::post(&self.url).header("stripe-signature", signature);
        let request = request.header(CONTENT_TYPE, "application/json; charset=utf-8").body(Body::from(body))?;
        Ok(self.client.request(request).await?.status())
    }
}

/// The header `stripe-signature` of a body that is sent at this time, in Unix seconds.
pub fn sign(secret: &str, at: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}
