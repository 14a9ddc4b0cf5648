use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chassis::Next;
use chassis::boot::Prefixed;
use clap::Args;
use contracts::google::api::HttpBody;
use contracts::souk::payment::v1::*;
use provider::webhook::{SUBSCRIBED, sign};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::reason;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{Fixture, SECRET};
use crate::reconcile::compare_reported;
use crate::webhook::{delete_old, read_secret};

/// A webhook as it arrived: its signature and its body.
pub(super) type Delivery = (String, Vec<u8>);

impl Fixture {
    pub(super) async fn report(&self, signature: &str, body: &[u8]) -> Result<(), Status> {
        self.report_from("stripe", signature, body).await
    }

    async fn report_from(&self, provider: &str, signature: &str, body: &[u8]) -> Result<(), Status> {
        let body = HttpBody { content_type: "application/json".into(), data: body.to_vec(), extensions: vec![] };
        let mut request = Request::new(ReceiveWebhookRequest { provider: provider.into(), body: Some(body) });
        if !signature.is_empty() {
            request.metadata_mut().insert("stripe-signature", signature.parse().expect("visible text"));
        }
        self.client.clone().receive_webhook(request).await.map(drop)
    }

    pub(super) fn now(&self) -> u64 {
        self.kit.context.clock.now().unix_timestamp().unsigned_abs()
    }

    /// Whether a comparison of the order's payment is due at once.
    async fn is_comparison_due(&self, order_id: Uuid) -> bool {
        let due = sqlx::query_scalar!(
            r#"select check_at is not distinct from 'epoch' as "it!" from payment where order_id = $1"#,
            order_id,
        );
        due.fetch_one(&self.service.db).await.expect("a payment")
    }

    async fn intent_of(&self, order_id: Uuid) -> String {
        let id = sqlx::query_scalar!("select intent_id from payment where order_id = $1", order_id);
        id.fetch_one(&self.service.db).await.expect("a payment").expect("its intent is known")
    }

    async fn stored_ids(&self) -> i64 {
        let count = sqlx::query_scalar!(r#"select count(*) as "n!" from webhook_event"#);
        count.fetch_one(&self.service.db).await.expect("a count")
    }

    /// The webhooks that the simulator sends from now on.
    pub(super) async fn listen(&self) -> mpsc::UnboundedReceiver<Delivery> {
        async fn take(
            State(taken): State<mpsc::UnboundedSender<Delivery>>,
            headers: HeaderMap,
            body: Bytes,
        ) -> StatusCode {
            let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
            match taken.send((signature.to_owned(), body.to_vec())) {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::GONE,
            }
        }
        let (taken, deliveries) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hooks", listener.local_addr().expect("an address"));
        let page = Router::new().route("/hooks", post(take)).with_state(taken);
        tokio::spawn(async move { axum::serve(listener, page).await });
        self.simulator.send_webhooks(url, SECRET.to_owned(), vec![]);
        deliveries
    }
}

fn refunded(event_id: &str, intent_id: &str) -> Vec<u8> {
    let object =
        format!(r#"{{"id": "re_1", "object": "refund", "payment_intent": "{intent_id}", "status": "succeeded"}}"#);
    format!(r#"{{"id": "{event_id}", "type": "refund.created", "data": {{"object": {object}}}}}"#).into_bytes()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_webhook_that_the_provider_did_not_sign_changes_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let body = refunded("evt_1", &fixture.intent_of(order).await);
    let good = sign(SECRET, fixture.now(), &body);
    let (time, hash) = good.split_once(',').expect("two parts");
    let forged = [
        String::new(),
        "t=,v1=".into(),
        time.to_owned(),
        hash.to_owned(),
        format!("{time},v1=00"),
        format!("{time},v0={}", hash.trim_start_matches("v1=")),
        sign("whsec_other", fixture.now(), &body),
        sign(SECRET, fixture.now(), b"another body"),
        sign(SECRET, fixture.now() - 301, &body),
        sign(SECRET, fixture.now() + 301, &body),
    ];
    for signature in forged {
        let refused = fixture.report(&signature, &body).await.expect_err(&signature);
        assert_eq!(refused.code(), Code::Unauthenticated, "{signature}");
        assert_eq!(reason(&refused), "WEBHOOK_SIGNATURE_INVALID@souk.payment");
    }
    let elsewhere = fixture.report_from("paypal", &good, &body).await.expect_err("an unknown provider");
    assert_eq!(reason(&elsewhere), "PROVIDER_NOT_FOUND@souk.payment");
    assert!(!fixture.is_comparison_due(order).await);
    assert_eq!(fixture.stored_ids().await, 0);

    // While a secret is rotated, both sign.
    fixture.report(&format!("{time},v1={},{hash}", "00".repeat(32)), &body).await.expect("one of them is right");
    assert!(fixture.is_comparison_due(order).await);
    for late in [-300, 300] {
        let at = fixture.now().checked_add_signed(late).expect("a time");
        fixture.report(&sign(SECRET, at, &body), &body).await.expect("within the tolerance");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_body_that_is_no_event_is_refused_and_an_unknown_object_is_not(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for body in
        ["", "{}", "[]", r#"{"id": "", "type": "x", "data": {"object": {}}}"#, r#"{"id": "evt_1", "type": "x"}"#]
    {
        let refused = fixture.report(&sign(SECRET, fixture.now(), body.as_bytes()), body.as_bytes()).await;
        assert_eq!(refused.expect_err(body).code(), Code::InvalidArgument);
    }
    assert_eq!(fixture.stored_ids().await, 0);
    for body in [
        refunded("evt_1", "pi_nobody_knows"),
        br#"{"id": "evt_2", "type": "account.updated\u0000", "data": {"object": {"id": "acct_1\u0000"}}}"#.to_vec(),
    ] {
        fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("it is not about our payments");
    }
    assert_eq!(fixture.stored_ids().await, 0, "the id of a webhook that changes nothing is not stored");
    let order = fixture.captured("pm_card_visa").await;
    let body = refunded("evt_1", &fixture.intent_of(order).await);
    fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("taken");
    assert_eq!(fixture.stored_ids().await, 1);
    fixture.kit.context.clock.advance(Duration::from_secs(31 * 24 * 3_600));
    assert_eq!(delete_old(fixture.service.clone()).await.expect("deleted"), Next::AtOnce);
    assert_eq!(fixture.stored_ids().await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_repeated_webhook_causes_no_second_comparison(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let body = refunded("evt_1", &fixture.intent_of(order).await);
    for causes_comparison in [true, false, false] {
        fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("taken");
        assert_eq!(compare_reported(fixture.service.clone()).await.expect("looked") == Next::AtOnce, causes_comparison);
    }
}

/// The webhooks of a payment that is authorized, captured and refunded in part.
const REPORTED: [&str; 10] = [
    "charge.captured",
    "charge.refund.updated",
    "charge.refunded",
    "charge.succeeded",
    "charge.updated",
    "payment_intent.amount_capturable_updated",
    "payment_intent.created",
    "payment_intent.succeeded",
    "refund.created",
    "refund.updated",
];

/// Webhooks arrive late, twice and in reverse order; only what is read from the provider counts.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn webhooks_in_any_order_only_cause_comparisons(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut deliveries = fixture.listen().await;
    let manner = format!("{}/_webhooks", fixture.provider);
    let form = [("delay_ms", "100"), ("times", "2"), ("order", "backwards")];
    reqwest::Client::new().post(manner).form(&form).send().await.expect("the provider is there");

    let order = fixture.captured("pm_card_visa").await;
    fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", "900")]).await;
    let mut kinds = BTreeMap::new();
    for _ in 0..2 * REPORTED.len() {
        let (signature, body) = deliveries.recv().await.expect("a webhook");
        // The simulator signs with the system clock, so it is signed again.
        let ours = sign(SECRET, fixture.now(), &body);
        assert_ne!(signature, ours);
        fixture.report(&ours, &body).await.expect("taken");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        *kinds.entry(event["type"].as_str().expect("a type").to_owned()).or_insert(0) += 1;
        while compare_reported(fixture.service.clone()).await.expect("looked") == Next::AtOnce {}
    }
    assert_eq!(kinds, REPORTED.map(|kind| (kind.to_owned(), 2)).into());
    fixture.work().await;
    assert_eq!(fixture.ours(order).await.last(), Some(&("REFUND".to_owned(), 900)));
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    assert_eq!(fixture.published(order).await, ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"]);
}

/// A webhook reports that a pending refund succeeded: it is recorded before its next attempt is due.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_webhook_about_a_pending_refund_makes_it_due_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut deliveries = fixture.listen().await;
    let order = fixture.captured("pm_card_pendingRefund").await;
    fixture.refund(order, "k1", None).await.expect("reserved");
    crate::drive::drive(fixture.service.clone()).await.expect("driven");
    assert_eq!(
        crate::drive::drive(fixture.service.clone()).await.expect("driven"),
        Next::AfterPause,
        "it is under way"
    );
    loop {
        let (_, body) = deliveries.recv().await.expect("a webhook");
        fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("taken");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if event["type"] == "refund.updated" {
            break;
        }
    }
    assert_eq!(crate::drive::drive(fixture.service.clone()).await.expect("driven"), Next::AtOnce);
    assert_eq!(fixture.refunds(order).await, [(2_500, "DONE".to_owned())]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_a_secret_webhooks_are_refused_and_everything_else_works(db: PgPool) {
    assert!(read_secret(std::path::Path::new("/nobody/wrote/it")).is_none());
    let fixture = Fixture::open_with(db, Duration::from_secs(10), |service| service.webhook_secret = None).await;
    let body = refunded("evt_1", "pi_1");
    let refused =
        fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect_err("no signature can be verified");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "WEBHOOKS_NOT_CONFIGURED@souk.payment".into()));
    fixture.reserved("pm_card_visa").await;
}

/// Every webhook about our own calls reports what is recorded already, whenever it arrives: it causes no comparison, and is
/// accepted with a read-only database.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_webhook_about_our_own_call_writes_nothing(db: PgPool) {
    let fixture = Fixture::open(db.clone()).await;
    let mut deliveries = fixture.listen().await;
    let paid = fixture.captured("pm_card_visa").await;
    fixture.refund(paid, "k1", Some(700)).await.expect("reserved");
    fixture.work().await;
    fixture.refund(paid, "k2", None).await.expect("reserved");
    fixture.work().await;
    let (gone, refused) = (fixture.reserved("pm_card_visa").await, fixture.reserved("pm_card_chargeDeclined").await);
    fixture.work().await;
    fixture.cancelled(gone).await;
    fixture.work().await;
    let kept = fixture.captured("pm_souk_capture_fails").await;
    for (order, state) in [(paid, "CAPTURED"), (gone, "VOIDED"), (refused, "DECLINED"), (kept, "FAILED")] {
        assert_eq!(fixture.state(order).await, state);
    }
    let options = (*db.connect_options()).clone().options([("default_transaction_read_only", "on")]);
    let reader = Fixture::open(PgPoolOptions::new().connect_lazy_with(options)).await;
    let mut kinds = BTreeSet::new();
    // Six of the first payment and four for each refund, five of the second, three each of those that were refused.
    for at in 0..6 + 2 * 4 + 5 + 3 + 5 {
        let (_, body) = deliveries.recv().await.expect("a webhook");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let taken = reader.report(&sign(SECRET, fixture.now(), &body), &body).await;
        taken.unwrap_or_else(|error| panic!("{at}: {error:?} of {event:#}"));
        kinds.insert(event["type"].as_str().expect("a type").to_owned());
    }
    assert!(deliveries.try_recv().is_err(), "that was all");
    for kind in
        REPORTED.into_iter().chain(["charge.failed", "payment_intent.payment_failed", "payment_intent.canceled"])
    {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    assert_eq!(compare_reported(fixture.service.clone()).await.expect("looked"), Next::AfterPause);
    // A webhook that reports a change is written.
    let changed = refunded("evt_1", &fixture.intent_of(paid).await);
    assert!(
        reader.report(&sign(SECRET, fixture.now(), &changed), &changed).await.is_err(),
        "the database is read-only"
    );
}

/// The events in the role's help, and those that the simulator sends.
#[test]
fn the_events_to_subscribe_to_are_documented() {
    let help = Prefixed::<crate::Config>::augment_args(clap::Command::new("payment")).render_long_help().to_string();
    for event in SUBSCRIBED {
        assert!(help.contains(event), "{event}");
    }
}

/// Replicas delete at the same time, and none waits for rows that another has locked.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn replicas_delete_old_webhooks_without_waiting_for_each_other(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for event in ["evt_1", "evt_2"] {
        sqlx::query!("insert into webhook_event (event_id, received_at) values ($1, 'epoch')", event)
            .execute(&fixture.service.db)
            .await
            .expect("planted");
    }
    let mut other = fixture.service.db.begin().await.expect("another replica");
    sqlx::query!("delete from webhook_event where event_id = 'evt_1'").execute(&mut *other).await.expect("locked");
    delete_old(fixture.service.clone()).await.expect("it does not wait");
    other.rollback().await.expect("rolled back");
    let left =
        sqlx::query_scalar!("select event_id from webhook_event").fetch_all(&fixture.service.db).await.expect("rows");
    assert_eq!(left, ["evt_1"]);
}
