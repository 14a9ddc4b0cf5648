//! Refunds that come to nothing: after they were done, or after days under way.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::Next;
use chassis::check::Range;
use contracts::souk::payment::v1::*;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use provider::webhook::sign;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Fixture, SECRET};
use crate::drive::{count_behind, drive};
use crate::reconcile::{compare_daily, compare_reported};

impl Fixture {
    /// What the bank, or the customer, did about one of an order's refunds.
    async fn set_refund(&self, order_id: Uuid, at: usize, status: &str, failure_reason: &str) {
        let reference = sqlx::query_scalar!(
            r#"select reference as "it!" from refund join payment using (payment_id) where order_id = $1 order by refund_id"#,
            order_id,
        );
        let reference = &reference.fetch_all(&self.service.db).await.expect("refunds")[at];
        let mut form = vec![("status", status)];
        form.extend(Some(("failure_reason", failure_reason)).filter(|(_, why)| !why.is_empty()));
        self.at_provider(order_id, &format!("/_refunds/{reference}"), &form).await;
    }

    /// As operators see it.
    async fn shown(&self, order_id: Uuid) -> GetPaymentResponse {
        let ask = GetPaymentRequest { payment_id: self.payment_id(order_id).await.to_string() };
        self.client.clone().get_payment(self.kit.operator(ask)).await.expect("it is there").into_inner()
    }
}

/// The provider says weeks later that a refund came back: the money is ours again, an event says so, and it can be given
/// back once more.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_fails_after_it_was_done_is_booked_back_and_can_be_given_again(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    for (key, minor) in [("k1", 700), ("k2", 1_000)] {
        fixture.refund(order, key, Some(minor)).await.expect("reserved");
        fixture.work().await;
    }
    fixture.set_refund(order, 1, "failed", "bank_account_closed").await;
    for _ in 0..2 {
        fixture.compare().await;
    }
    assert_eq!(fixture.refunds(order).await, [(700, "DONE".to_owned()), (1_000, "FAILED".to_owned())]);
    assert_eq!(fixture.ours(order).await.last(), Some(&("REFUND_REVERSAL".to_owned(), 1_000)));
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    assert_eq!(fixture.difference(order).await, "");
    let last = testkit::published(&fixture.service.db).await.pop().expect("events");
    assert_eq!(last.actor, "provider");
    let event = PaymentEvent::decode(&*last.payload).expect("an event").event;
    let Some(payment_event::Event::PaymentRefundFailed(event)) = event else { panic!("{event:?}") };
    let shown = fixture.shown(order).await;
    assert_eq!(event.refund_id, shown.refunds[1].refund_id);
    assert_eq!((event.amount, &*event.reason), (Some(Money::new("EUR", 1_000)), "bank_account_closed"));
    assert_eq!(shown.refunds[1].failure_reason, "bank_account_closed");
    assert_eq!(shown.payment.expect("it").refunded_minor, 700);

    fixture.refund(order, "k3", Some(1_800)).await.expect("as much as was not given back");
    fixture.work().await;
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    assert_eq!(
        crate::check::check_ledger(&fixture.service.db, Range::ALL).await.expect("checked").violations,
        [].into()
    );
}

/// An order that ended still wants its customer's money to go back.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_ended_gives_again_what_came_back_unless_the_card_is_closed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (why, again) in [("unknown", true), ("lost_or_stolen_card", false)] {
        let order = fixture.captured("pm_card_visa").await;
        fixture.cancelled(order).await;
        fixture.work().await;
        fixture.set_refund(order, 0, "failed", why).await;
        fixture.compare().await;
        fixture.work().await;
        let (failed, done) = ((2_500, "FAILED".to_owned()), (2_500, "DONE".to_owned()));
        assert_eq!(fixture.refunds(order).await, if again { vec![failed, done] } else { vec![failed] });
        let refusal = if again { "" } else { "CARD_CLOSED" };
        assert_eq!(fixture.shown(order).await.payment.expect("it").refund_refusal, refusal);
        assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    }
}

/// Some refunds take days, and may come to nothing: no metric reports a delay of ours, and what they reserved is free again.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_is_pending_for_days_is_looked_up_at_growing_intervals(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (end, why, reason) in [("failed", "insufficient_funds", "insufficient_funds"), ("canceled", "", "canceled")] {
        let order = fixture.captured("pm_souk_refund_waits").await;
        fixture.refund(order, end, Some(900)).await.expect("reserved");
        let mut asked = 0;
        let begun = fixture.kit.context.clock.now();
        while fixture.kit.context.clock.now() - begun < Duration::from_secs(3 * 24 * 3_600) {
            if drive(fixture.service.clone()).await.expect("driven") == Next::AtOnce {
                asked += 1;
            }
            fixture.kit.context.clock.advance(Duration::from_secs(60));
        }
        assert!((72..150).contains(&asked), "{asked} times in three days");
        fixture.set_refund(order, 0, "requires_action", "").await;
        fixture.kit.context.clock.advance(Duration::from_secs(3_600));
        drive(fixture.service.clone()).await.expect("driven");
        assert_eq!(fixture.refunds(order).await, [(900, "PENDING".to_owned())], "the customer has to act first");
        assert_eq!(count_behind(&fixture.service).await.expect("counted"), 0, "it is the provider's");
        fixture.set_refund(order, 0, end, why).await;
        fixture.kit.context.clock.advance(Duration::from_secs(3_600));
        fixture.work().await;
        let shown = fixture.shown(order).await;
        assert_eq!((shown.refunds[0].state(), &*shown.refunds[0].failure_reason), (RefundState::Failed, reason));
        assert_eq!(shown.payment.expect("it").refund_pending_minor, 0);
        assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    }
}

/// The webhook of a failed refund is acted upon at once; the other webhooks about it add nothing.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_webhook_about_a_failed_refund_causes_a_comparison_at_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.refund(order, "k1", Some(1_000)).await.expect("reserved");
    fixture.work().await;
    let mut deliveries = fixture.listen().await;
    fixture.set_refund(order, 0, "failed", "unknown").await;
    let mut reported = BTreeMap::new();
    for _ in 0..3 {
        let (_, body) = deliveries.recv().await.expect("a webhook");
        fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("taken");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let is_compared = compare_reported(fixture.service.clone()).await.expect("looked") == Next::AtOnce;
        reported.insert(event["type"].as_str().expect("a type").to_owned(), is_compared);
        // After a change it is compared once more, in case there are more changes.
        while compare_reported(fixture.service.clone()).await.expect("looked") == Next::AtOnce {}
    }
    assert_eq!(reported.keys().collect::<Vec<_>>(), ["charge.refund.updated", "refund.failed", "refund.updated"]);
    assert_eq!(reported.values().filter(|is_compared| **is_compared).count(), 1, "{reported:?}");
    assert_eq!(fixture.refunds(order).await, [(1_000, "FAILED".to_owned())]);
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

/// While one refund is pending for days, nothing else of its payment waits: neither the outcome of another one, nor the refund of
/// an order that ended, nor the next one that an operator requests.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pending_refund_delays_no_other(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_souk_refund_waits").await;
    let drive_all = async || while drive(fixture.service.clone()).await.expect("driven") == Next::AtOnce {};
    // A day later, as replicas do it: due payments are driven, and the others are compared.
    let compare = async || {
        fixture.kit.context.clock.advance(Duration::from_secs(24 * 3_600 + 1));
        drive_all().await;
        while compare_daily(fixture.service.clone()).await.expect("compared") == Next::AtOnce {
            drive_all().await;
        }
    };
    for (key, minor) in [("k1", 100), ("k2", 200)] {
        fixture.refund(order, key, Some(minor)).await.expect("reserved");
        drive_all().await;
    }
    fixture.set_refund(order, 0, "succeeded", "").await;
    compare().await;
    let states = async || fixture.refunds(order).await.into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(states().await, ["DONE", "PENDING"]);
    fixture.set_refund(order, 0, "failed", "unknown").await;
    compare().await;
    assert_eq!(states().await, ["FAILED", "PENDING"], "the second is still pending");
    assert_eq!(fixture.difference(order).await, "");

    fixture.kit.context.clock.advance(Duration::from_secs(24 * 3_600));
    drive_all().await;
    fixture.refund(order, "k3", Some(300)).await.expect("reserved");
    drive_all().await;
    fixture.refund(order, "k4", Some(400)).await.expect("reserved");
    fixture.cancelled(order).await;
    drive_all().await;
    let named = sqlx::query_scalar!(r#"select count(*) as "n!" from refund where reference is not null"#);
    assert_eq!(named.fetch_one(&fixture.service.db).await.expect("a count"), 5, "the provider accepted each of them");
    let pending = |minor| (minor, "PENDING".to_owned());
    assert_eq!(
        fixture.refunds(order).await[1..],
        [200, 300, 400, 1_600].map(pending),
        "and the remainder for the order"
    );
    for at in 1..5 {
        fixture.set_refund(order, at, "succeeded", "").await;
    }
    compare().await;
    fixture.work().await;
    assert_eq!(fixture.ours(order).await.iter().filter(|(kind, _)| kind == "REFUND").count(), 5);
    let (mut ours, mut theirs) = (fixture.ours(order).await, fixture.theirs(order).await);
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    assert_eq!(
        crate::check::check_ledger(&fixture.service.db, Range::ALL).await.expect("checked").violations,
        [].into()
    );
}
