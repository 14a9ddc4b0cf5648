//! Simulates the payment provider: Stripe's wire API over real HTTP, with its own ledger, which ours can be compared to. It
//! never loses a call that got a response, and never moves money twice for one intent. On another port, it simulates the provider
//! of text messages ([`Sms`]).
//!
//! # Stripe's API
//!
//! Form-encoded requests, JSON responses, errors as `{"error": {type, code, decline_code, param, message,
//! payment_intent}}`. `Authorization: Bearer sk_...` is required (any key that starts like that), `Idempotency-Key` is
//! honoured on every POST, `Stripe-Version` is accepted, `Request-Id` is on every response and
//! `Idempotent-Replayed: true` on a replay. Unknown parameters are refused, so that a misspelt one is found in tests.
//!
//! | Call | Parameters |
//! | --- | --- |
//! | `POST /v1/payment_intents` | `amount`, `currency`, `payment_method`, `capture_method` (`automatic`, `manual`), `payment_method_types[]` (`card`), `confirm`, `description`, `metadata[..]`, and those of confirm |
//! | `POST /v1/payment_intents/{id}/confirm` | `payment_method`, `off_session`, `error_on_requires_action` |
//! | `POST /v1/payment_intents/{id}/capture` | `amount_to_capture` (the rest is released) |
//! | `POST /v1/payment_intents/{id}/cancel` | `cancellation_reason` |
//! | `GET /v1/payment_intents/{id}` | `expand[]` (`latest_charge`) |
//! | `GET /v1/payment_intents` | `created[gte]`, `created[gt]`, `created[lt]`, `created[lte]`, `limit`, `starting_after`, `expand[]` (`data.latest_charge`, `data.latest_charge.refunds`) |
//! | `POST /v1/refunds` | `payment_intent`, `amount`, `reason`, `metadata[..]` |
//! | `GET /v1/refunds` | `payment_intent` (required here), `limit`, `starting_after` |
//! | `GET /v1/refunds/{id}` | |
//!
//! The payment method selects the outcome, see [`outcome`]. The response of an executed call is stored under its idempotency
//! key, also a refusal (decline, wrong state, nothing left to refund) and a simulated error (500); that of a malformed call, or
//! one that names an unknown object, is not. A slow call takes effect at the end of its wait, even if its caller has
//! disconnected; until then its key gets 409.
//!
//! # Limits
//!
//! `POST /_limits` sets a limit of `per_second` calls within any second. Calls beyond it get 429, code `rate_limit`, and the
//! header `Stripe-Rate-Limited-Reason`, as at Stripe. `reason` selects one of Stripe's reasons (`lock_timeout` is a 429 with that
//! code and without the header), `retry_after` adds that header; without `per_second` there is no limit. `GET /_limits` returns
//! how many calls were served and refused since.
//!
//! # The ledger (no API key needed)
//!
//! `GET /_ledger?after=N&limit=M` lists every movement of money, oldest first; `seq` starts at 1 without gaps, `limit` is at
//! most (and by default) 1,000, `next` is the `after` of the following page, `more` says whether that has any rows yet:
//!
//! ```json
//! {"entries": [{"seq": 1, "kind": "authorized", "attempt": 1, "intent": "pi_...", "refund": null, "amount": 1250,
//!               "currency": "eur", "metadata": {"order": "..."}, "at": 1767225600000}], "next": 1, "more": false}
//! ```
//!
//! `kind` is `authorized`, `captured`, `voided` (an authorization, or the rest of it after a partial capture, was released),
//! `refunded` or `refund_failed` (a refund that had succeeded failed); `attempt` counts the movements of that kind on that
//! intent, so a second capture would have 2; `metadata` is the intent's; `refund` is the refund's id if there is one; `at` is in
//! Unix milliseconds.
//!
//! `POST /_refunds/{id}` sets the `status` (`pending`, `requires_action`, `succeeded`, `failed`, `canceled`) and
//! `failure_reason` of a refund, as the bank or the customer would cause it. As at Stripe, a refund that succeeded may fail
//! later; `failed` and `canceled` are final.
//!
//! # Webhooks
//!
//! With `--webhook-url` and `--webhook-secret-file`, each change is sent there as Stripe's events about the intent, its charge,
//! the dispute of a charge, and the refund (`payment_intent.*`, `charge.*`, `refund.*`), if `--webhook-events` has the type, signed as Stripe signs.
//! `POST /_webhooks` changes their delivery from then on: `delay_ms`, `times` (0 delivers none), and `order`: `backwards`
//! reverses events that wait together.

mod command;
mod error;
mod http;
mod idempotency;
mod intent;
mod journal;
mod ledger;
mod limits;
mod list;
mod listener;
mod metadata;
pub mod outcome;
mod params;
mod refund;
mod seed;
mod sms;
pub mod webhook;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use command::Request;
use error::Error;
use http::ApiResponse;
use ledger::{Executed, Ledger, Started};
use limits::Limits;
use outcome::{HANG, SLOW, Trouble};
use refund::RefundId;
use webhook::Webhooks;

pub use seed::{Seed, seed};
pub use sms::Sms;

/// How long calls in progress may take after the signal to stop. Their effects are in the journal already, so a call that is
/// cut off looks like a lost connection to its caller.
const GRACE: Duration = Duration::from_secs(1);

/// The provider: a ledger behind a lock, which is held while one call is executed and never across a wait.
#[derive(Clone)]
pub struct Provider {
    ledger: Arc<Mutex<Ledger>>,
    limits: Arc<Mutex<Limits>>,
}

/// The target of webhooks, the file with the signing secret in its first line, and the event types to send (empty: all).
pub struct WebhookEndpoint {
    pub url: String,
    pub secret_file: PathBuf,
    pub events: Vec<String>,
}

/// The PEM files of a server's certificate and of its key.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Serves until SIGTERM or SIGINT. Text messages have an address of their own.
pub async fn serve(
    listen: SocketAddr,
    sms_listen: Option<SocketAddr>,
    tls: Option<Certificate>,
    data: PathBuf,
    webhooks: Option<WebhookEndpoint>,
) -> io::Result<()> {
    let provider = Provider::open(data)?;
    let tls = tls.map(|files| listener::acceptor(&files.certificate, &files.key)).transpose()?;
    if let Some(WebhookEndpoint { url, secret_file, events }) = webhooks {
        let secret = std::fs::read_to_string(secret_file)?;
        provider.send_webhooks(url, secret.lines().next().unwrap_or_default().to_owned(), events);
    }
    let listener = TcpListener::bind(listen).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
    });
    if let Some(address) = sms_listen {
        let sms = listener::Bounded::new(TcpListener::bind(address).await?, tls.clone());
        tracing::info!(%address, "the provider of text messages listens");
        tokio::spawn(async move { axum::serve(sms, Sms::default().router()).await });
    }
    tracing::info!(address = %listener.local_addr()?, "the payment provider listens");
    provider.serve_over(listener, tls, stop).await
}

impl Provider {
    /// Opens the ledger in this folder, or creates it. Only one process may have it open.
    pub fn open(data: impl AsRef<Path>) -> io::Result<Provider> {
        let ledger = Arc::new(Mutex::new(Ledger::open(data.as_ref())?));
        Ok(Provider { ledger, limits: Arc::default() })
    }

    /// Sends webhooks about changes from now on to this URL, of these event types (empty: all).
    pub fn send_webhooks(&self, url: String, secret: String, events: Vec<String>) {
        self.ledger().webhooks = Some(Webhooks::send_to(url, secret, events));
    }

    fn router(&self) -> axum::Router {
        http::router(self.clone())
    }

    /// Serves on an open socket until `stop` is cancelled.
    pub async fn serve_on(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.serve_over(listener, None, stop).await
    }

    async fn serve_over(
        self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        for refund in self.ledger().refunds_that_change() {
            self.advance_later(refund);
        }
        let server = axum::serve(listener::Bounded::new(listener, tls), self.router())
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = async { server.await } => served,
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }

    async fn perform(&self, request: Request) -> Result<ApiResponse, Error> {
        let started = self.ledger().start(&request)?;
        let executed = match started {
            Started::Replay(response) => return Ok(response),
            Started::Done(executed) => executed,
            Started::Slow(wait) => self.finish_after(wait, request).await?,
        };
        if let Some(refund) = executed.changes_later {
            self.advance_later(refund);
        }
        match executed.trouble {
            None => Ok(executed.response),
            Some(Trouble::Error) => Err(Error::Broken),
            Some(Trouble::Hang) => {
                tokio::time::sleep(HANG).await;
                Err(Error::GaveUp)
            }
        }
    }

    /// In a separate task, as a call takes effect even if its caller disconnects.
    async fn finish_after(&self, wait: Duration, request: Request) -> Result<Executed, Error> {
        let provider = self.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            provider.ledger().finish(&request)
        });
        task.await.unwrap_or(Err(Error::Broken))
    }

    fn advance_later(&self, refund: RefundId) {
        let provider = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SLOW).await;
            if let Err(error) = provider.ledger().advance_refund(refund) {
                tracing::error!(?error, %refund, "the refund's status could not be changed");
            }
        });
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().expect("nothing panics while it holds this lock")
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("a panic while the ledger was being changed leaves nothing to trust")
    }
}
