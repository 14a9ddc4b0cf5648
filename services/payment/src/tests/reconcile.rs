use std::time::Duration;

use chassis::Next;
use contracts::souk::order::v1::OrderPaymentFailed;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::payment::v1::{PaymentEvent, payment_event};
use contracts::souk::r#type::v1::Money;
use prost::Message;
use sqlx::PgPool;
use uuid::Uuid;

use super::Fixture;
use crate::drive::drive;
use crate::reconcile::{Lag, compare_daily, compare_reported, count_differences, measure_lag};

const DAY: Duration = Duration::from_secs(24 * 3_600 + 1);

impl Fixture {
    pub(super) async fn intent_id(&self, order_id: Uuid) -> String {
        let id = sqlx::query_scalar!("select intent_id from payment where order_id = $1", order_id);
        id.fetch_one(&self.service.db).await.expect("a payment").expect("its intent is known")
    }

    /// The order's intent, as the provider shows it.
    pub(super) async fn intent(&self, order_id: Uuid) -> serde_json::Value {
        let url = format!("{}/v1/payment_intents/{}", self.provider, self.intent_id(order_id).await);
        let shown = reqwest::Client::new().get(url).bearer_auth("sk_test_souk").send().await;
        let shown = shown.expect("the provider is there").bytes().await.expect("a body");
        serde_json::from_slice(&shown).expect("JSON")
    }

    /// Something is done at the provider itself to the order's intent.
    pub(super) async fn at_provider(&self, order_id: Uuid, path: &str, form: &[(&str, &str)]) {
        let id = self.intent_id(order_id).await;
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.replace("INTENT", &id))).collect();
        let url = format!("{}{}", self.provider, path.replace("INTENT", &id));
        let done = reqwest::Client::new().post(url).bearer_auth("sk_test_souk").form(&form).send().await;
        let done = done.expect("the provider is there");
        assert!(done.status().is_success(), "{path}: {}", done.status());
    }

    /// Every payment is compared, until nothing is found that was not known.
    pub(super) async fn compare(&self) {
        self.kit.context.clock.advance(DAY);
        loop {
            compare_daily(self.service.clone()).await.expect("compared");
            let now = self.kit.context.clock.now();
            let open = sqlx::query_scalar!(r#"select count(*) as "n!" from payment where check_at <= $1"#, now);
            if open.fetch_one(&self.service.db).await.expect("a count") == 0 {
                break;
            }
        }
    }

    pub(super) async fn difference(&self, order_id: Uuid) -> String {
        let found = sqlx::query_scalar!("select difference from payment where order_id = $1", order_id);
        found.fetch_one(&self.service.db).await.expect("a payment")
    }

    /// The simulator does not count its calls; a compared payment says when it is compared next.
    async fn is_due_within(&self, order_id: Uuid, time: Duration) -> bool {
        let at = sqlx::query_scalar!("select check_at from payment where order_id = $1", order_id);
        let at = at.fetch_one(&self.service.db).await.expect("a payment");
        at.is_some_and(|at| at <= self.kit.context.clock.now() + time)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_agrees_is_compared_once_a_day_for_thirty_days(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (paid, held) = (fixture.captured("pm_card_visa").await, fixture.reserved("pm_card_visa").await);
    let (refused, gone) = (fixture.reserved("pm_card_chargeDeclined").await, fixture.reserved("pm_card_visa").await);
    fixture.work().await;
    fixture.refund(paid, "k1", Some(700)).await.expect("reserved");
    fixture.cancelled(gone).await;
    fixture.work().await;
    assert_eq!(compare_daily(fixture.service.clone()).await.expect("compared"), Next::AfterPause);
    assert!(!fixture.is_due_within(paid, Duration::from_secs(3_600)).await, "it was changed just now");
    fixture.compare().await;
    for order in [paid, held, refused, gone] {
        assert_eq!(fixture.difference(order).await, "");
        assert!(fixture.is_due_within(order, DAY).await && !fixture.is_due_within(order, DAY / 2).await);
    }
    fixture.kit.context.clock.advance(DAY * 30);
    fixture.compare().await;
    assert!(!fixture.is_due_within(paid, DAY * 365).await, "nothing happens to it any more");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn refunds_made_at_the_provider_are_recorded_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.refund(order, "k1", Some(500)).await.expect("reserved");
    fixture.work().await;
    for amount in ["300", "300"] {
        fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", amount)]).await;
    }
    // One comparison for each, and one that finds nothing more.
    for _ in 0..3 {
        fixture.compare().await;
    }
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    assert_eq!(fixture.refunds(order).await, [500, 300, 300].map(|minor| (minor, "DONE".to_owned())));
    assert_eq!(fixture.difference(order).await, "");
    let records = testkit::published(&fixture.service.db).await;
    assert_eq!(records.last().expect("events").actor, "provider");

    // What is left is what can still be given back.
    fixture.refund(order, "k2", None).await.expect("reserved");
    fixture.work().await;
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_ended_does_not_give_back_what_was_refunded_at_the_provider(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT")]).await;
    fixture.cancelled(order).await;
    assert_eq!(drive(fixture.service.clone()).await.expect("driven"), Next::AtOnce);
    assert_eq!(fixture.refunds(order).await, [(2_500, "FAILED".to_owned())], "nothing is left there");
    assert_eq!(compare_reported(fixture.service.clone()).await.expect("looked"), Next::AtOnce);
    fixture.work().await;
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;
}

/// Holds end by themselves after some days, or one is cancelled at the provider.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_authorization_that_the_provider_released_ends_the_payment(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let waits = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.at_provider(waits, "/v1/payment_intents/INTENT/cancel", &[]).await;
    fixture.compare().await;
    fixture.expect(waits, "FAILED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentCaptureFailed"]).await;

    let wanted = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.at_provider(wanted, "/v1/payment_intents/INTENT/cancel", &[]).await;
    fixture.confirmed(wanted).await;
    fixture.work().await;
    fixture.expect(wanted, "FAILED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentCaptureFailed"]).await;

    let unwanted = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.at_provider(unwanted, "/v1/payment_intents/INTENT/cancel", &[]).await;
    fixture.cancelled(unwanted).await;
    fixture.work().await;
    fixture.expect(unwanted, "VOIDED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentVoided"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_captured_at_the_provider_is_booked_when_it_is_wanted_and_told_before(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.at_provider(order, "/v1/payment_intents/INTENT/capture", &[]).await;
    fixture.compare().await;
    assert_eq!(
        (fixture.state(order).await.as_str(), fixture.difference(order).await.as_str()),
        ("AUTHORIZED", "captured")
    );
    fixture.confirmed(order).await;
    fixture.work().await;
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"]).await;
    fixture.compare().await;
    assert_eq!(fixture.difference(order).await, "", "it is reported no longer");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_difference_that_cannot_be_recorded_is_reported(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (lost, short) = (fixture.captured("pm_card_visa").await, fixture.captured("pm_card_visa").await);
    for change in [
        "update payment set intent_id = 'pi_nobody_knows' where order_id = $1",
        "update payment set state = 'VOIDED' where order_id = $1",
    ] {
        sqlx::query(change).bind(lost).execute(&fixture.service.db).await.expect("planted");
    }
    for change in [
        "alter table ledger_transfer disable trigger user",
        "update ledger_transfer set minor = 2499 where kind = 'CAPTURE'",
        "alter table ledger_transfer enable trigger user",
    ] {
        sqlx::query(change).execute(&fixture.service.db).await.expect("planted");
    }
    fixture.compare().await;
    assert_eq!(
        (fixture.difference(lost).await, fixture.difference(short).await),
        ("missing".into(), "captured".into())
    );
    count_differences(fixture.service.clone()).await.expect("counted");
    let page = chassis::boot::metrics::render();
    for kind in ["missing", "captured"] {
        assert!(page.contains(&format!("souk_payment_differences{{problem=\"{kind}\"}} 1")), "{page}");
    }
}

/// Several workers, as in two replicas: each payment is compared once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn workers_share_the_comparisons_and_their_lag_is_reported(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for _ in 0..6 {
        fixture.captured("pm_card_visa").await;
    }
    let lag = async || {
        measure_lag(fixture.service.clone()).await.expect("measured");
        let page = chassis::boot::metrics::render();
        let line =
            page.lines().find(|line| line.starts_with("souk_payment_comparison_lag_seconds ")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a lag")
    };
    assert_eq!(lag().await, 0, "nothing is due");
    fixture.kit.context.clock.advance(DAY + Duration::from_secs(7_200));
    assert!((7_200..7_300).contains(&lag().await), "the first of them is two hours late");
    fixture.limit(None, &[]).await;
    let all = async || while compare_daily(fixture.service.clone()).await.expect("compared") == Next::AtOnce {};
    while lag().await > 0 {
        tokio::join!(all(), all(), all(), all());
    }
    assert_eq!(fixture.calls().await, (6, 0), "one call for each");
}

/// A provider that is away leaves payments uncompared, however often it is asked.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_comparison_without_a_response_is_late(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let reported = fixture.captured("pm_card_visa").await;
    fixture.captured("pm_card_visa").await;
    let clock = &fixture.kit.context.clock;
    let lag = async || Lag::measure(&fixture.service).await.expect("measured");
    let ask = async || {
        while compare_reported(fixture.service.clone()).await.expect("tried") == Next::AtOnce {}
        while compare_daily(fixture.service.clone()).await.expect("tried") == Next::AtOnce {}
    };
    clock.advance(DAY + Duration::from_secs(600));
    fixture.limit(Some(0), &[("reason", "lock_timeout")]).await;
    sqlx::query!("update payment set check_at = 'epoch' where order_id = $1", reported)
        .execute(&fixture.service.db)
        .await
        .expect("a webhook reported it");
    for minutes in 1..=30 {
        ask().await;
        clock.advance(Duration::from_secs(60));
        let (found, late) = (lag().await, 600 + minutes * 60);
        assert!((late..late + 60).contains(&found.longest().whole_seconds()), "{} {late}", found.longest());
        assert_eq!(found.why(), "the provider does not respond");
    }
    fixture.limit(None, &[]).await;
    while lag().await.longest().is_positive() {
        ask().await;
    }
    assert_eq!(fixture.calls().await, (2, 0), "one call for each");

    // Its month ends while the provider does not respond: it is compared when it does.
    clock.advance(DAY * 31);
    fixture.stop.cancel();
    while fixture.service.provider.get("pi_nobody_knows").await.is_ok() {}
    for _ in 0..2 {
        ask().await;
        clock.advance(Duration::from_secs(60));
    }
    let days = lag().await.longest().whole_days();
    assert_eq!(days, 30, "due a day after it was compared");
}

/// The order decides what that means; the books say what happened, and agree with the provider's.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_part_that_was_captured_at_the_provider_is_booked_as_a_part_and_goes_back_whole(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    let form = [("amount_to_capture", "1000")];
    fixture.at_provider(order, "/v1/payment_intents/INTENT/capture", &form).await;
    fixture.confirmed(order).await;
    fixture.work().await;
    assert_eq!(fixture.state(order).await, "CAPTURED");
    let captured = testkit::published(&fixture.service.db).await.pop().expect("events");
    let captured = PaymentEvent::decode(&*captured.payload).expect("an event").event;
    let Some(payment_event::Event::PaymentCaptured(captured)) = captured else { panic!("{captured:?}") };
    assert_eq!(captured.amount, Some(Money::new("EUR", 1_000)), "as much as there is");
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    fixture.compare().await;
    assert_eq!(fixture.difference(order).await, "");

    // The remainder that the provider released is no refund: after a partial refund, another one is made as usual.
    fixture.refund(order, "k1", Some(300)).await.expect("reserved");
    fixture.work().await;
    fixture.compare().await;
    assert_eq!(fixture.difference(order).await, "");
    fixture.ended(order, Event::OrderPaymentFailed(OrderPaymentFailed { reason: "CAPTURED_IN_PART".to_owned() })).await;
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [300, 700].map(|minor| (minor, "DONE".to_owned())));
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}
