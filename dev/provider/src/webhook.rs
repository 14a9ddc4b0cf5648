//! Webhooks, as Stripe sends them: signed, at least once, in any order. What cannot be delivered is tried again for a
//! while and then given up, so whoever listens must not rely on hearing everything.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::intent::{Intent, Status};
use crate::ledger::now;
use crate::refund::{Refund, RefundStatus};

/// What `souk payment --help` says that an endpoint subscribes to.
pub const SUBSCRIBED: [&str; 6] = [
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.succeeded",
    "refund.created",
    "refund.failed",
    "refund.updated",
];

/// How many may wait; what is more is lost.
const WAITING: usize = 10_000;
const AT_ONCE: usize = 16;
const TRIES: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(10);

/// How webhooks are delivered from now on, see the module [`crate`].
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub delay: Duration,
    /// How often each is delivered.
    pub times: u32,
    pub order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    AsItCame,
    /// Of those that wait together, the last one first.
    Backwards,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner { delay: Duration::ZERO, times: 1, order: Order::AsItCame }
    }
}

#[derive(Clone)]
pub(crate) struct Webhooks {
    queue: mpsc::Sender<Value>,
    /// Which are sent. None named: all.
    subscribed: Arc<[String]>,
    manner: Arc<Mutex<Manner>>,
}

impl Webhooks {
    pub(crate) fn send_to(url: String, secret: String, subscribed: Vec<String>) -> Webhooks {
        let (queue, events) = mpsc::channel(WAITING);
        let manner = Arc::new(Mutex::new(Manner::default()));
        // Another machine's, so that it does not use up what the edge allows to those who buy from this one.
        let client = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2]));
        let client = client.build().expect("nothing of it can be wrong");
        tokio::spawn(send(Arc::new(Receiver { url, secret, client }), events, manner.clone()));
        Webhooks { queue, subscribed: subscribed.into(), manner }
    }

    pub(crate) fn set_manner(&self, manner: Manner) {
        *self.manner.lock().expect("nothing panics while it holds this lock") = manner;
    }

    /// Tells what a call changed, by one event for each object that it changed and each way to tell it, as Stripe does.
    pub(crate) fn tell(&self, change: &Change<'_>) {
        for (kind, object) in change.events() {
            if self.subscribed.is_empty() || self.subscribed.iter().any(|subscribed| subscribed == kind) {
                self.queue(kind, &object, change.at);
            }
        }
    }

    fn queue(&self, kind: &str, object: &Value, at: u64) {
        let event = json!({
            "id": format!("evt_{}", Uuid::now_v7().simple()),
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": at / 1_000,
            "data": {"object": object},
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": kind,
        });
        if self.queue.try_send(event).is_err() {
            tracing::warn!("too many webhooks are waiting; one is lost");
        }
    }
}

/// What a call changed.
pub(crate) struct Change<'a> {
    pub(crate) before: Option<&'a Intent>,
    pub(crate) after: &'a Intent,
    /// The refund that it made or changed, and how that stood before.
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
            // Captured at once, it is told as succeeded only.
            names.extend((was_authorized > 0).then_some("charge.captured"));
            names.extend(["payment_intent.succeeded", "charge.updated"]);
        }
        if became(Status::Canceled) {
            names.push("payment_intent.canceled");
            // What was held and let go counts as refunded.
            names.extend((after.voided.times > 0).then_some("charge.refunded"));
        }
        let object = |name: &str| if name.starts_with("charge.") { after.charge_json() } else { after.to_json() };
        let mut events: Vec<_> = names.into_iter().map(|name| (name, object(name))).collect();
        if let Some((refund, before)) = self.refund.filter(|(refund, before)| *before != Some(refund.status)) {
            let is_new = before.is_none();
            events.extend(is_new.then(|| ("charge.refunded", after.charge_json())));
            let mut names = Vec::from_iter(is_new.then_some("refund.created"));
            if !is_new || !refund.status.is_under_way() {
                names.extend(["refund.updated", "charge.refund.updated"]);
            }
            names.extend((refund.status == RefundStatus::Failed).then_some("refund.failed"));
            events.extend(names.into_iter().map(|name| (name, refund.to_json(after))));
        }
        events
    }
}

/// Who is told.
struct Receiver {
    url: String,
    secret: String,
    client: reqwest::Client,
}

async fn send(receiver: Arc<Receiver>, mut events: mpsc::Receiver<Value>, manner: Arc<Mutex<Manner>>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut batch = Vec::new();
    while let Some(first) = events.recv().await {
        batch.push(first);
        let manner = *manner.lock().expect("nothing panics while it holds this lock");
        tokio::time::sleep(manner.delay).await;
        while let Ok(next) = events.try_recv() {
            batch.push(next);
        }
        if manner.order == Order::Backwards {
            batch.reverse();
        }
        for event in batch.drain(..) {
            for _ in 0..manner.times {
                let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
                let (receiver, body) = (receiver.clone(), event.to_string());
                tokio::spawn(async move {
                    receiver.deliver(body).await;
                    drop(place);
                });
            }
        }
    }
}

impl Receiver {
    /// Each try has a signature of its own, made when it is sent.
    async fn deliver(&self, body: String) {
        for attempt in 1..=TRIES {
            let signature = sign(&self.secret, now() / 1_000, body.as_bytes());
            let request = self.client.post(&self.url).header("stripe-signature", signature);
            let request = request.header("content-type", "application/json; charset=utf-8");
            match request.timeout(PATIENCE).body(body.clone()).send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => tracing::warn!(status = %answer.status(), attempt, "a webhook was not taken"),
                Err(error) => tracing::warn!(%error, attempt, "a webhook was not delivered"),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        tracing::error!(body, "a webhook was given up");
    }
}

/// What the header `stripe-signature` says of a body that is sent at this time, in Unix seconds.
pub fn sign(secret: &str, at: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}
