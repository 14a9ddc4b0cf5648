//! Receives the provider's webhooks. A webhook sets no state: it only schedules a comparison of its payment with the provider,
//! so duplicates, delays and reordering do not matter. Most webhooks report the effects of our own calls, which are already
//! recorded: these cost one read and no write.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use chassis::Next;
use chassis::boot::config::first_line;
use chassis::boot::metrics::{self, ByOutcome};
use chassis::{Error as Refused, Unexpected};
use contracts::souk::payment::v1::{ReceiveWebhookRequest, ReceiveWebhookResponse};
use hex::FromHex;
use hmac::{Hmac, KeyInit, Mac};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::error::Error;
use crate::ids::PaymentId;
use crate::refund::RefundState;
use crate::service::Service;
use crate::state::State;

/// How far the time of a signature may be from ours.
const TOLERANCE: Duration = Duration::seconds(300);
/// How long the ids of webhooks are stored: longer than the provider repeats them.
const KEPT: Duration = Duration::days(30);

/// The outcome of a webhook that reports something that is not recorded yet.
const CHANGED: &str = "changed";

static WEBHOOKS: LazyLock<Family<ByOutcome, Counter>> =
    LazyLock::new(|| metrics::register("payment_webhooks", "Webhooks of the payment provider", Family::default()));

/// The body of a webhook, as far as we read it.
#[derive(Deserialize)]
struct Event {
    id: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

/// An intent, or what belongs to one, such as a charge or a refund.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    id: Option<String>,
    object: Option<String>,
    payment_intent: Option<String>,
    status: Option<String>,
    amount: Option<i64>,
    amount_received: Option<i64>,
    captured: Option<bool>,
    amount_captured: Option<i64>,
    amount_refunded: Option<i64>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    refund_id: Option<String>,
}

impl Object {
    fn intent_id(&self) -> Option<&str> {
        let id = if self.object.as_deref() == Some("payment_intent") { &self.id } else { &self.payment_intent };
        id.as_deref().filter(|id| is_id(id))
    }
}

/// What is recorded of the payment that a webhook is about.
struct Recorded {
    payment_id: PaymentId,
    state: State,
    /// Whether a worker has claimed it, and will read its state from the provider.
    is_leased: bool,
    captured: i64,
    /// Pending refunds included.
    refunded: i64,
    refund: Option<RecordedRefund>,
}

/// What is recorded of the refund that a webhook is about.
struct RecordedRefund {
    state: RefundState,
    /// Whether the provider's id of it is recorded.
    has_reference: bool,
}

impl Recorded {
    async fn of(db: &PgPool, object: &Object) -> Result<Option<Self>, Unexpected> {
        let Some(intent_id) = object.intent_id() else { return Ok(None) };
        let ours = object.metadata.as_ref().and_then(|it| it.refund_id.as_deref());
        let row = sqlx::query!(
            r#"select payment.payment_id as "payment_id: PaymentId", payment.state as "state: State", lease is not null as "is_leased!", captured_minor,
                 refunded_minor + refund_pending_minor as "refunded!",
                 refund.state as "refund_state?: RefundState", refund.reference as "reference?"
               from payment left join refund on refund.payment_id = payment.payment_id
                 and (refund.reference = $2 or refund.refund_id = $3 and refund.reference is null)
               where intent_id = $1
               order by refund.reference nulls last limit 1"#,
            intent_id,
            object.id.as_deref().filter(|id| is_id(id)),
            ours.and_then(|id| Uuid::parse_str(id).ok()),
        );
        let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
        let has_reference = row.reference.is_some();
        Ok(Some(Self {
            payment_id: row.payment_id,
            state: row.state,
            is_leased: row.is_leased,
            captured: row.captured_minor,
            refunded: row.refunded,
            refund: row.refund_state.map(|state| RecordedRefund { state, has_reference }),
        }))
    }

    /// Whether a webhook reports nothing new: what it reports is recorded, or the call that is in progress will record it. A late
    /// webhook reports nothing new, either: the payment has changed since.
    fn covers(&self, object: &Object) -> bool {
        use State::{Authorized, Authorizing, Captured, Capturing, Declined, Failed, Voided, Voiding};
        let in_progress = self.is_leased && matches!(self.state, Authorizing | Capturing | Voiding);
        let status = object.status.as_deref().unwrap_or_default();
        match object.object.as_deref() {
            Some("payment_intent") if in_progress => true,
            Some("payment_intent") => match status {
                "requires_confirmation" => true,
                "requires_capture" => matches!(self.state, Authorized | Captured | Voided | Failed),
                "succeeded" => self.state == Captured && object.amount_received == Some(self.captured),
                "canceled" => matches!(self.state, Voided | Failed),
                "requires_payment_method" => self.state == Declined,
                _ => false,
            },
            Some("charge") if in_progress => true,
            Some("charge") => match (status, object.captured, object.amount_refunded) {
                ("failed", ..) => matches!(self.state, Declined | Failed),
                ("succeeded", Some(false), Some(0)) => {
                    matches!(self.state, Authorized | Capturing | Captured | Voiding | Voided | Failed)
                }
                ("succeeded", Some(false), Some(_)) => matches!(self.state, Voided | Failed),
                ("succeeded", Some(true), Some(amount_refunded)) => {
                    // What was not captured was released, which the provider counts as refunded.
                    let released =
                        object.amount.zip(object.amount_captured).map(|(amount, captured)| amount - captured);
                    object.amount_captured == Some(self.captured)
                        && released.is_some_and(|released| amount_refunded - released <= self.refunded)
                }
                _ => false,
            },
            Some("refund") => self.refund.as_ref().is_some_and(|refund| match (refund.state, status) {
                // The response to our own call may still say that it succeeded.
                (RefundState::Pending, "failed" | "canceled") => false,
                (RefundState::Pending, _) if !refund.has_reference => self.is_leased,
                (_, "pending" | "requires_action") => true,
                (state, "succeeded") => state == RefundState::Done,
                (state, "failed" | "canceled") => state == RefundState::Failed,
                _ => false,
            }),
            _ => false,
        }
    }
}

/// `signature`: the header `stripe-signature`.
pub(crate) async fn receive(
    service: &Service,
    signature: Option<&str>,
    request: ReceiveWebhookRequest,
) -> Result<ReceiveWebhookResponse, Error> {
    if request.provider != "stripe" {
        return Err(Error::ProviderNotFound);
    }
    let secret = service.webhook_secret.as_ref().ok_or(Error::WebhooksNotConfigured)?;
    let (body, now) = (request.body.unwrap_or_default().data, service.clock.now());
    if let Err(why) = verify(secret, signature, &body, now) {
        WEBHOOKS.get_or_create(&ByOutcome::new("invalid_signature")).inc();
        return Err(Error::WebhookSignatureInvalid(why));
    }
    let event = serde_json::from_slice::<Event>(&body).ok().filter(|event| is_id(&event.id));
    let event = event.ok_or_else(|| Refused::field("body", "is not an event"))?;
    let object = &event.data.object;

    // The id of a webhook that changes nothing is not stored: its repeat changes nothing either.
    let outcome = match Recorded::of(&service.db, object).await? {
        None => "not_ours",
        Some(recorded) if recorded.covers(object) => "known",
        Some(recorded) if schedule_comparison(service, &event.id, recorded.payment_id).await? => CHANGED,
        Some(_) => "repeated",
    };
    WEBHOOKS.get_or_create(&ByOutcome::new(outcome)).inc();
    if outcome == CHANGED {
        service.work.wake();
        service.comparisons.wake();
    }
    Ok(ReceiveWebhookResponse {})
}

/// Schedules a comparison of the payment, unless this webhook did so before. If the outcome of a call is unknown, it is read at
/// once; a backoff after a refusal is kept.
async fn schedule_comparison(service: &Service, event_id: &str, payment_id: PaymentId) -> Result<bool, Unexpected> {
    let scheduled = sqlx::query!(
        "with new as (insert into webhook_event (event_id, received_at) values ($1, $2)
           on conflict on constraint webhook_event_id do nothing returning event_id)
         update payment set check_at = 'epoch',
           due_at = case when lease is null and due_at > $2
               and (refund_pending_minor > 0 or state in ('AUTHORIZING', 'CAPTURING', 'VOIDING')) then $2
             else due_at end
         where payment_id = $3 and exists (select from new)",
        event_id,
        service.clock.now(),
        payment_id.0,
    );
    Ok(scheduled.execute(&service.db).await?.rows_affected() == 1)
}

/// Whether it may be an id of the provider.
fn is_id(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Stripe's scheme: `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">`; one `v1` for each secret while it changes.
fn verify(
    secret: &SecretString,
    signature: Option<&str>,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<(), &'static str> {
    let signature = signature.ok_or("there is no signature")?;
    let parts = || signature.split(',').filter_map(|part| part.trim().split_once('='));
    let (_, at) = parts().find(|(name, _)| *name == "t").ok_or("it has no time")?;
    let seconds: i64 = at.parse().map_err(|_| "its time is not a number")?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).map_err(|_| "the secret is no key")?;
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    let ours = parts().filter(|(name, _)| *name == "v1").filter_map(|(_, hex)| <[u8; 32]>::from_hex(hex).ok());
    if !ours.into_iter().any(|claimed| mac.clone().verify_slice(&claimed).is_ok()) {
        return Err("it does not match the body");
    }
    if now.unix_timestamp().abs_diff(seconds) > TOLERANCE.whole_seconds().unsigned_abs() {
        return Err("its time is too far from ours");
    }
    Ok(())
}

pub(crate) async fn delete_old(service: Arc<Service>) -> Result<Next, Unexpected> {
    let done = sqlx::query!(
        "delete from webhook_event where event_id in
           (select event_id from webhook_event where received_at < $1 order by received_at limit 1000
            for update skip locked)",
        service.clock.now() - KEPT,
    );
    Ok(Next::at_once_if(done.execute(&service.db).await?.rows_affected() > 0))
}

/// Without the secret webhooks are refused, and everything else works: outcomes are read from the provider anyway.
pub(crate) fn read_secret(file: &Path) -> Option<SecretString> {
    match first_line(file) {
        Ok(secret) if !secret.is_empty() => Some(secret.into()),
        Ok(_) => {
            tracing::error!(file = %file.display(), "PAYMENT_WEBHOOK_SECRET_FILE is empty; webhooks are refused");
            None
        }
        Err(why) => {
            tracing::error!(why, "PAYMENT_WEBHOOK_SECRET_FILE cannot be read; webhooks are refused");
            None
        }
    }
}
