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

use super::intent::Intent;
use super::ledger::{Movement, now};
use super::refund::Refund;

/// How many may wait; what is more is lost.
const WAITING: usize = 10_000;
const AT_ONCE: usize = 16;
const TRIES: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(10);

/// How webhooks are delivered from now on, see the module [`super`].
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
pub(super) struct Webhooks {
    queue: mpsc::Sender<Value>,
    manner: Arc<Mutex<Manner>>,
}

impl Webhooks {
    pub(super) fn send_to(url: String, secret: String) -> Webhooks {
        let (queue, events) = mpsc::channel(WAITING);
        let manner = Arc::new(Mutex::new(Manner::default()));
        // Another machine's, so that it does not use up what the edge allows to those who buy from this one.
        let client = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, 2]));
        let client = client.build().expect("nothing of it can be wrong");
        tokio::spawn(send(Arc::new(Receiver { url, secret, client }), events, manner.clone()));
        Webhooks { queue, manner }
    }

    pub(super) fn set_manner(&self, manner: Manner) {
        *self.manner.lock().expect("nothing panics while it holds this lock") = manner;
    }

    pub(super) fn tell(&self, movement: &Movement, intent: &Intent, refund: Option<&Refund>) {
        let (kind, object) = match (movement.kind, refund) {
            ("authorized", _) => ("payment_intent.amount_capturable_updated", intent.to_json()),
            ("captured", _) => ("payment_intent.succeeded", intent.to_json()),
            ("voided", _) => ("payment_intent.canceled", intent.to_json()),
            (_, Some(refund)) => ("refund.updated", refund.to_json(intent)),
            (_, None) => return,
        };
        let event = json!({
            "id": format!("evt_{}", Uuid::now_v7().simple()),
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": movement.at / 1_000,
            "data": {"object": object},
            "livemode": false,
            "type": kind,
        });
        if self.queue.try_send(event).is_err() {
            tracing::warn!("too many webhooks are waiting; one is lost");
        }
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
