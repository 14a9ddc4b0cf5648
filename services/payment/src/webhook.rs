//! The provider reports that something happened. Its word is only a hint: the payment it is about is looked at soon, and
//! what is true then is asked of the provider. Order, repeats and lateness of reports therefore do not matter.

use std::sync::{Arc, LazyLock};

use chassis::config::Secret;
use chassis::metrics::{self, Of};
use chassis::step::Did;
use chassis::{Error as Refused, Unexpected};
use contracts::souk::payment::v1::{ReceiveWebhookRequest, ReceiveWebhookResponse};
use hmac::{Hmac, KeyInit, Mac};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Deserialize;
use sha2::Sha256;
use time::{Duration, OffsetDateTime};

use crate::Service;
use crate::error::Error;

/// How far the time of a signature may be from ours.
const TOLERANCE: Duration = Duration::seconds(300);
/// How long the names of reports are remembered: longer than the provider repeats them.
const REMEMBERED: Duration = Duration::days(30);

static WEBHOOKS: LazyLock<Family<Of, Counter>> = LazyLock::new(|| {
    metrics::register("payment_webhooks", "Reports of the payment provider, by what they were", Family::default())
});

/// A report, as far as we read it.
#[derive(Deserialize)]
struct Event {
    id: String,
    r#type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

/// An intent, or what belongs to one, such as a charge or a refund.
#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    object: Option<String>,
    payment_intent: Option<String>,
    status: Option<String>,
}

impl Object {
    fn intent_id(&self) -> Option<&str> {
        let id = if self.object.as_deref() == Some("payment_intent") { &self.id } else { &self.payment_intent };
        id.as_deref().filter(|id| is_name(id))
    }
}

/// `signature`: what the header of that name says.
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
        WEBHOOKS.get_or_create(&Of::new("forged")).inc();
        return Err(Error::WebhookSignatureInvalid(why));
    }
    let event = serde_json::from_slice::<Event>(&body).ok().filter(|event| is_name(&event.id));
    let event = event.ok_or_else(|| Refused::field("body", "is not an event"))?;
    let object = &event.data.object;

    let mut tx = service.db.begin().await?;
    let remembered = sqlx::query!(
        "insert into webhook_event (event_id, received_at) values ($1, $2)
         on conflict on constraint webhook_event_id do nothing",
        event.id,
        now,
    );
    if remembered.execute(&mut *tx).await?.rows_affected() == 0 {
        WEBHOOKS.get_or_create(&Of::new("repeated")).inc();
        return Ok(ReceiveWebhookResponse {});
    }
    // What says no more than what we know, or are about to hear, is not asked about: most reports are echoes of our own
    // calls. Only what is under way is asked about before its time; what was refused keeps its rest.
    let known = sqlx::query_scalar!(
        r#"with known as (select payment_id, $4::text like 'payment\_intent.%' and (
             lease is not null and state in ('AUTHORIZING', 'CAPTURING', 'VOIDING') or (state, $3::text) in
               (('AUTHORIZED', 'requires_capture'), ('CAPTURED', 'requires_capture'), ('CAPTURED', 'succeeded'),
                ('VOIDED', 'canceled'), ('FAILED', 'canceled'), ('DECLINED', 'requires_payment_method'))) as echo
           from payment where intent_id = $1 for no key update),
         marked as (update payment set check_at = 'epoch',
             due_at = case when lease is null and due_at > $2
                 and (refund_pending_minor > 0 or state in ('AUTHORIZING', 'CAPTURING', 'VOIDING')) then $2
               else due_at end
           from known where payment.payment_id = known.payment_id and not echo)
         select echo as "echo!" from known"#,
        object.intent_id(),
        now,
        object.status.as_deref().unwrap_or_default().replace('\0', ""),
        event.r#type.replace('\0', ""),
    );
    let what = match known.fetch_optional(&mut *tx).await? {
        None => "unknown",
        Some(true) => "echo",
        Some(false) => "news",
    };
    tx.commit().await?;
    WEBHOOKS.get_or_create(&Of::new(what)).inc();
    if what == "news" {
        service.work.wake();
        service.looks.wake();
    }
    Ok(ReceiveWebhookResponse {})
}

/// What the provider calls things.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Stripe's scheme: `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">`; one `v1` for each secret while it changes.
fn verify(secret: &Secret, signature: Option<&str>, body: &[u8], now: OffsetDateTime) -> Result<(), &'static str> {
    let signature = signature.ok_or("there is none")?;
    let parts = || signature.split(',').filter_map(|part| part.trim().split_once('='));
    let (_, at) = parts().find(|(name, _)| *name == "t").ok_or("it has no time")?;
    let seconds: i64 = at.parse().map_err(|_| "its time is none")?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).map_err(|_| "the secret is no key")?;
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    let ours = parts().filter(|(name, _)| *name == "v1").filter_map(|(_, hex)| decode(hex));
    if !ours.into_iter().any(|claimed| mac.clone().verify_slice(&claimed).is_ok()) {
        return Err("it signs something else");
    }
    if now.unix_timestamp().abs_diff(seconds) > TOLERANCE.whole_seconds().unsigned_abs() {
        return Err("its time is too far from ours");
    }
    Ok(())
}

fn decode(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = hex.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

pub(crate) async fn forget_old(service: Arc<Service>) -> Result<Did, Unexpected> {
    let done = sqlx::query!(
        "delete from webhook_event where event_id in
           (select event_id from webhook_event where received_at < $1 order by received_at limit 1000)",
        service.clock.now() - REMEMBERED,
    );
    Ok(Did::any(done.execute(&service.db).await?.rows_affected()))
}
