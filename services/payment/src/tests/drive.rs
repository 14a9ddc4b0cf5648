use std::fmt::Debug;
use std::time::Duration;

use chassis::Next;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderCancelled, OrderConfirmed, OrderExpired, OrderPaymentFailed, OrderReserved};
use sqlx::PgPool;
use testkit::order_event;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Fixture, RATES};
use crate::budget::Budget;
use crate::claim::claim;
use crate::drive::{count_behind, drive, drive_claimed, drive_one};
use crate::stripe::Stripe;

pub(super) fn reserved(payment_method: &str) -> Event {
    Event::OrderReserved(OrderReserved { payment_method: payment_method.to_owned() })
}

fn moved(kinds: &[&str]) -> Vec<(String, i64)> {
    kinds.iter().map(|kind| ((*kind).to_owned(), 2_500)).collect()
}

impl Fixture {
    pub(super) async fn reserved(&self, payment_method: &str) -> Uuid {
        let order_id = Uuid::now_v7();
        self.kit.deliver(order_event(order_id, 2, reserved(payment_method))).await;
        order_id
    }

    pub(super) async fn confirmed(&self, order_id: Uuid) {
        self.kit.deliver(order_event(order_id, 3, Event::OrderConfirmed(OrderConfirmed::default()))).await;
    }

    pub(super) async fn cancelled(&self, order_id: Uuid) {
        self.ended(order_id, Event::OrderCancelled(OrderCancelled::default())).await;
    }

    pub(super) async fn ended(&self, order_id: Uuid, how: Event) {
        self.kit.deliver(order_event(order_id, 4, how)).await;
    }

    /// Works until nothing is due, letting time pass where something was put off.
    pub(super) async fn work(&self) {
        for _ in 0..20 {
            while drive(self.service.clone()).await.expect("the database is there") == Next::AtOnce {}
            let due = sqlx::query_scalar!(r#"select count(*) as "n!" from payment where due_at is not null"#);
            if due.fetch_one(&self.service.db).await.expect("a count") == 0 {
                return;
            }
            self.kit.context.clock.advance(Duration::from_secs(31));
        }
        panic!("it never comes to rest");
    }

    /// An order that is paid.
    pub(super) async fn captured(&self, payment_method: &str) -> Uuid {
        let order_id = self.reserved(payment_method).await;
        self.work().await;
        self.confirmed(order_id).await;
        self.work().await;
        order_id
    }

    pub(super) async fn state(&self, order_id: Uuid) -> String {
        let state = sqlx::query_scalar!("select state from payment where order_id = $1", order_id);
        state.fetch_one(&self.service.db).await.expect("a payment")
    }

    /// The types of the events that were published about an order's payment.
    pub(super) async fn published(&self, order_id: Uuid) -> Vec<String> {
        self.kit.published(self.payment_id(order_id).await).await
    }

    /// Kinds and amounts in our ledger.
    pub(super) async fn ours(&self, order_id: Uuid) -> Vec<(String, i64)> {
        let rows = sqlx::query!(
            "select ledger_transfer.kind, minor from ledger_transfer join payment using (payment_id)
             where order_id = $1 order by id",
            order_id,
        );
        rows.fetch_all(&self.service.db).await.expect("rows").into_iter().map(|row| (row.kind, row.minor)).collect()
    }

    /// The same of the provider's, in the same words.
    pub(super) async fn theirs(&self, order_id: Uuid) -> Vec<(String, i64)> {
        let page = reqwest::get(format!("{}/_ledger", self.provider)).await.expect("the provider is there");
        let page: serde_json::Value = serde_json::from_slice(&page.bytes().await.expect("a body")).expect("JSON");
        let entries = page["entries"].as_array().expect("entries").iter();
        let own = entries.filter(|entry| entry["metadata"]["order_id"] == order_id.to_string());
        let named = own.map(|entry| {
            let kind = match entry["kind"].as_str().expect("a kind") {
                "authorized" => "AUTHORIZATION",
                "captured" => "CAPTURE",
                "voided" => "VOID",
                "refunded" => "REFUND",
                "refund_failed" => "REFUND_REVERSAL",
                other => panic!("nothing of ours is called {other}"),
            };
            (kind.to_owned(), entry["amount"].as_i64().expect("an amount"))
        });
        named.collect()
    }

    /// Both ledgers say so, and so does what was published.
    pub(super) async fn expect(&self, order_id: Uuid, state: &str, ledger: &[&str], events: &[&str]) {
        assert_eq!(self.state(order_id).await, state);
        assert_eq!(self.ours(order_id).await, moved(ledger), "our ledger");
        assert_eq!(self.theirs(order_id).await, moved(ledger), "the provider's ledger");
        assert_eq!(self.published(order_id).await, events);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_payment_is_authorized_then_captured_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.expect(order, "AUTHORIZED", &["AUTHORIZATION"], &["PaymentAuthorized"]).await;
    fixture.confirmed(order).await;
    fixture.work().await;
    fixture.work().await;
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refused_card_is_a_decline_with_its_reason(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (method, reason) in [
        ("pm_card_chargeDeclined", "CARD_DECLINED"),
        ("pm_card_chargeDeclinedInsufficientFunds", "INSUFFICIENT_FUNDS"),
        ("pm_card_authenticationRequired", "AUTHENTICATION_REQUIRED"),
        ("pm_nobody_knows_it", "PAYMENT_METHOD_INVALID"),
    ] {
        let order = fixture.reserved(method).await;
        fixture.work().await;
        fixture.expect(order, "DECLINED", &[], &["PaymentDeclined"]).await;
        let why = sqlx::query_scalar!("select failure_reason from payment where order_id = $1", order);
        assert_eq!(why.fetch_one(&fixture.service.db).await.expect("a payment"), reason);
        fixture.cancelled(order).await;
        fixture.work().await;
        assert_eq!(fixture.state(order).await, "DECLINED");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_capture_that_is_refused_keeps_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_souk_capture_fails").await;
    fixture.work().await;
    fixture.confirmed(order).await;
    fixture.work().await;
    fixture.expect(order, "FAILED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentCaptureFailed"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_without_a_response_is_looked_up_and_nothing_is_done_twice(db: PgPool) {
    for method in ["pm_souk_timeout_after_success", "pm_souk_error_after_success"] {
        let fixture = Fixture::open_with(db.clone(), Duration::from_millis(300), |_| {}).await;
        let order = fixture.reserved(method).await;
        fixture.work().await;
        fixture.confirmed(order).await;
        fixture.work().await;
        fixture
            .expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"])
            .await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_ended_keeps_nothing_however_and_whenever_it_ended(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for how in [
        Event::OrderCancelled(OrderCancelled::default()),
        Event::OrderExpired(OrderExpired::default()),
        Event::OrderPaymentFailed(OrderPaymentFailed::default()),
    ] {
        let before = fixture.reserved("pm_card_visa").await;
        fixture.ended(before, how.clone()).await;
        fixture.work().await;
        fixture.expect(before, "VOIDED", &[], &[]).await;

        let authorized = fixture.reserved("pm_card_visa").await;
        fixture.work().await;
        fixture.ended(authorized, how.clone()).await;
        fixture.work().await;
        fixture.expect(authorized, "VOIDED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentVoided"]).await;

        let captured = fixture.reserved("pm_card_visa").await;
        fixture.work().await;
        fixture.confirmed(captured).await;
        fixture.work().await;
        fixture.ended(captured, how).await;
        fixture.work().await;
        let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
        fixture.expect(captured, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;
    }
}

/// The worker that began it is gone, and with it the provider's response, if there was one.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nothing_is_held_for_an_order_that_ended_before_its_intent_was_known(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    sqlx::query("update payment set state = 'AUTHORIZING'").execute(&fixture.service.db).await.expect("begun");
    sqlx::query("insert into payment_history (payment_id, state, at) select payment_id, state, now() from payment")
        .execute(&fixture.service.db)
        .await
        .expect("begun");
    fixture.cancelled(order).await;
    fixture.work().await;
    fixture.expect(order, "VOIDED", &[], &[]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_is_tried_in_vain_for_a_minute_is_behind(db: PgPool) {
    let (patience, budget) = (Duration::from_secs(10), Budget::new(db.clone(), RATES));
    let away = Stripe::new("http://127.0.0.1:1", "sk_test_souk", patience, budget);
    let fixture = Fixture::open_with(db, patience, |service| service.provider = away.expect("a URL")).await;
    let order = fixture.reserved("pm_card_visa").await;
    for _ in 0..3 {
        assert_eq!(drive(fixture.service.clone()).await.expect("driven"), Next::AtOnce);
        fixture.kit.context.clock.advance(Duration::from_secs(31));
    }
    assert_eq!(fixture.state(order).await, "AUTHORIZING");
    assert_eq!(count_behind(&fixture.service).await.expect("counted"), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_cancel_during_a_call_waits_for_its_end_and_undoes_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let slow = fixture.reserved("pm_souk_slow").await;
    let mut call = tokio::spawn(drive(fixture.service.clone()));
    wait_for(&fixture, &mut call, slow, "AUTHORIZING").await;
    fixture.cancelled(slow).await;
    call.await.expect("no panic").expect("driven");
    fixture.work().await;
    fixture.expect(slow, "VOIDED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentVoided"]).await;

    let slow = fixture.reserved("pm_souk_slow_capture").await;
    fixture.work().await;
    fixture.confirmed(slow).await;
    let mut call = tokio::spawn(drive(fixture.service.clone()));
    wait_for(&fixture, &mut call, slow, "CAPTURING").await;
    fixture.cancelled(slow).await;
    call.await.expect("no panic").expect("driven");
    fixture.work().await;
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    fixture.expect(slow, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;
}

/// Until a call that is under way has brought a payment there. Before the intent is known, nothing is under way that has
/// to be undone.
async fn wait_for<T: Debug>(fixture: &Fixture, call: &mut JoinHandle<T>, order: Uuid, state: &str) {
    let reached = || {
        sqlx::query_scalar!(
            r#"select (state = $2 and intent_id is not null) as "it!" from payment where order_id = $1"#,
            order,
            state
        )
    };
    let seen = async {
        while !reached().fetch_one(&fixture.service.db).await.expect("a payment") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = seen => {}
        ended = call => panic!("the call ended before {state}: {ended:?}"),
    }
}

/// A worker that was killed: its lease expires, and the next worker reads how its call ended.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_a_killed_worker_began_is_settled_by_asking(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    fixture.confirmed(order).await;
    fixture.work().await;
    // As if the process had died between the provider's response and recording it.
    let until = fixture.kit.context.clock.now() + Duration::from_secs(25);
    let mut tx = fixture.service.db.begin().await.expect("the database is there");
    for change in [
        "alter table ledger_transfer disable trigger user",
        "delete from ledger_transfer where kind = 'CAPTURE'",
        "alter table ledger_transfer enable trigger user",
        "update payment set state = 'CAPTURING', captured_minor = 0, lease = gen_random_uuid()",
    ] {
        if change.starts_with("update") {
            let change = format!("{change}, due_at = $1, leased_until = $1");
            sqlx::query(sqlx::AssertSqlSafe(change)).bind(until).execute(&mut *tx).await.expect("set back");
        } else {
            sqlx::query(change).execute(&mut *tx).await.expect("a test may");
        }
    }
    tx.commit().await.expect("committed");
    assert_eq!(drive(fixture.service.clone()).await.expect("driven"), Next::AfterPause, "it is leased");
    fixture.work().await;
    assert_eq!(fixture.state(order).await, "CAPTURED");
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn workers_share_the_work_and_never_a_payment(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(fixture.reserved("pm_card_visa").await);
    }
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let service = fixture.service.clone();
        crowd.spawn(async move { while drive(service.clone()).await.expect("driven") == Next::AtOnce {} });
    }
    crowd.join_all().await;
    for order in orders {
        fixture.expect(order, "AUTHORIZED", &["AUTHORIZATION"], &["PaymentAuthorized"]).await;
    }
}

/// Events that share a transaction wake one worker once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn one_wake_is_enough_for_all_payments_that_are_due(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(fixture.reserved("pm_card_visa").await);
    }
    let worker = async {
        loop {
            fixture.service.work.woken().await;
            drive_one(fixture.service.clone()).await.expect("driven");
        }
    };
    let done = async {
        for order in &orders {
            while fixture.state(*order).await != "AUTHORIZED" {
                tokio::task::yield_now().await;
            }
        }
    };
    let both = async {
        tokio::select! { () = worker => {}, () = done => {} }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("each is driven");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_ledger_is_only_ever_added_to(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    for change in ["update ledger_transfer set minor = 1", "delete from ledger_transfer"] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(change)).execute(&fixture.service.db).await.expect_err(change);
        assert!(refused.to_string().contains("only ever added"), "{refused}");
    }
}

/// The order ends after the payment was claimed and before the first call.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_intent_of_an_order_that_ended_meanwhile_is_withdrawn_and_holds_nothing(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    let claimed = claim(&fixture.service).await.expect("the database is there").expect("it is due");
    fixture.cancelled(order).await;
    drive_claimed(&fixture.service, claimed).await.expect("driven");
    fixture.work().await;
    assert_eq!(fixture.state(order).await, "VOIDED");
    assert_eq!(fixture.intent(order).await["status"], "canceled");
    // An authorization that is voided at once would show on the card for days.
    assert_eq!((fixture.ours(order).await, fixture.theirs(order).await), (vec![], vec![]));
}
