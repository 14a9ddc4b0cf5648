//! The unknown outcome of a call is read from the provider, whatever it has stored under the key.

use std::time::Duration;

use contracts::souk::payment::v1::*;
use provider::outcome::SLOW;
use sqlx::PgPool;

use super::Fixture;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_whose_stored_error_had_no_effect_gets_another_key(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_souk_error_without_effect").await;
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_amount_that_the_provider_refuses_is_a_decline(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    sqlx::query("update payment set amount_minor = 1").execute(&fixture.service.db).await.expect("below the minimum");
    fixture.work().await;
    fixture.expect(order, "DECLINED", &[], &["PaymentDeclined"]).await;
    let why = sqlx::query_scalar!("select failure_reason from payment where order_id = $1", order);
    assert_eq!(why.fetch_one(&fixture.service.db).await.expect("a payment"), "PAYMENT_REFUSED");
}

/// Without the cancellation, a call that still arrives could confirm the intent.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_intent_whose_confirmation_is_refused_is_cancelled(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_souk_confirm_refused").await;
    fixture.work().await;
    fixture.expect(order, "DECLINED", &[], &["PaymentDeclined"]).await;
    assert_eq!(fixture.intent(order).await["status"], "canceled");
}

/// The provider refused the capture, and the amount is still authorized.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_authorization_whose_capture_is_refused_is_voided_before_the_failure_is_recorded(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_souk_capture_declined").await;
    fixture.expect(order, "FAILED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentCaptureFailed"]).await;
}

/// The confirmation times out, has no effect yet when the intent is read, and takes effect just before the cancellation.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_authorization_that_was_voided_before_it_was_recorded_is_in_the_ledger(db: PgPool) {
    let fixture = Fixture::open_with(db, Duration::from_secs(1), |_| {}).await;
    let order = fixture.reserved("pm_souk_late_confirm").await;
    crate::drive::drive(fixture.service.clone()).await.expect("driven");
    assert_eq!(fixture.state(order).await, "AUTHORIZING", "the outcome is unknown");
    fixture.cancelled(order).await;
    fixture.work().await;
    fixture.expect(order, "VOIDED", &["AUTHORIZATION", "VOID"], &["PaymentVoided"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_whose_outcome_is_unknown_is_looked_up_and_never_made_twice(db: PgPool) {
    for method in ["pm_souk_refund_timeout", "pm_souk_refund_error"] {
        let fixture = Fixture::open_with(db.clone(), Duration::from_millis(300), |_| {}).await;
        let order = fixture.captured(method).await;
        fixture.refund(order, method, Some(1_000)).await.expect("reserved");
        fixture.work().await;
        assert_eq!(fixture.refunds(order).await, [(1_000, "DONE".to_owned())], "{method}");
        assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
        assert_eq!(fixture.ours(order).await.last(), Some(&("REFUND".to_owned(), 1_000)));
    }
}

/// The provider does not list it while it processes it, so it is requested again, which is harmless only under the same key.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_is_slow_to_show_is_not_given_twice(db: PgPool) {
    let fixture = Fixture::open_with(db, Duration::from_millis(600), |_| {}).await;
    let order = fixture.captured("pm_souk_slow_refund").await;
    fixture.refund(order, "k1", Some(1_000)).await.expect("reserved");
    for _ in 0..2 {
        crate::drive::drive(fixture.service.clone()).await.expect("driven");
        assert_eq!(fixture.refunds(order).await, [(1_000, "PENDING".to_owned())], "the outcome is unknown");
        fixture.kit.context.clock.advance(Duration::from_secs(1));
    }
    // Just as slow, and begun later: when this one has a response, the effects of the others are visible.
    fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", "1")]).await;
    assert_eq!(fixture.theirs(order).await[2..], [("REFUND".to_owned(), 1_000), ("REFUND".to_owned(), 1)]);
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [(1_000, "DONE".to_owned())]);
    assert_eq!(fixture.ours(order).await[2..], [("REFUND".to_owned(), 1_000)]);
}

/// Its amount would be refunded twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_without_a_refund_does_not_prove_that_it_was_not_made(db: PgPool) {
    let fixture = Fixture::open_with(db, Duration::from_millis(300), |_| {}).await;
    let order = fixture.captured("pm_souk_refund_unlisted").await;
    fixture.refund(order, "k1", Some(1_000)).await.expect("reserved");
    for _ in 0..2 {
        crate::drive::drive(fixture.service.clone()).await.expect("driven");
        assert_eq!(fixture.refunds(order).await, [(1_000, "PENDING".to_owned())], "the outcome is unknown");
        fixture.kit.context.clock.advance(Duration::from_secs(61));
    }
    assert_eq!(fixture.theirs(order).await[2..], [("REFUND".to_owned(), 1_000)], "refunded once");
}

/// Our request never arrived; the refunded amount was refunded at the provider.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_made_at_the_provider_does_not_prevent_ours(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for (elsewhere, state) in [("700", "DONE"), ("2500", "FAILED")] {
        let order = fixture.captured("pm_card_visa").await;
        fixture.refund(order, elsewhere, Some(1_000)).await.expect("reserved");
        let tried_at = fixture.kit.context.clock.now() - Duration::from_secs(61);
        let asked = sqlx::query("update refund set tried_at = $1 where state = 'PENDING'").bind(tried_at);
        asked.execute(&fixture.service.db).await.expect("as if it had been asked for");
        fixture.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", elsewhere)]).await;
        fixture.work().await;
        assert_eq!(fixture.refunds(order).await, [(1_000, state.to_owned())]);
        fixture.compare().await;
        fixture.work().await;
        let (mut ours, mut theirs) = (fixture.ours(order).await, fixture.theirs(order).await);
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "and it is in the books");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pending_refund_is_booked_when_it_has_arrived(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_pendingRefund").await;
    fixture.refund(order, "k1", None).await.expect("reserved");
    crate::drive::drive(fixture.service.clone()).await.expect("driven");
    assert_eq!(fixture.refunds(order).await, [(2_500, "PENDING".to_owned())]);
    assert_eq!(fixture.ours(order).await.len(), 2, "nothing is booked yet");
    let arrived = async {
        while fixture.theirs(order).await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(2 * SLOW, arrived).await.expect("it arrives");
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    fixture.work().await;
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;
}

/// The reserved amount is free again; the refund of an ended order is attempted again.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_failed_refund_of_an_ended_order_is_requested_again(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_souk_refund_fails").await;
    fixture.cancelled(order).await;
    crate::drive::drive(fixture.service.clone()).await.expect("driven");
    assert_eq!(fixture.refunds(order).await, [(2_500, "FAILED".to_owned())]);
    fixture.kit.context.clock.advance(Duration::from_secs(61));
    assert_eq!(crate::drive::count_behind(&fixture.service).await.expect("counted"), 1, "and it shows");
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [(2_500, "FAILED".to_owned()), (2_500, "DONE".to_owned())]);
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    fixture.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;

    let asked = fixture.captured("pm_souk_refund_fails").await;
    fixture.refund(asked, "k1", Some(500)).await.expect("reserved");
    fixture.work().await;
    assert_eq!(fixture.refunds(asked).await, [(500, "FAILED".to_owned())], "it is not attempted again");
    let ask = GetPaymentRequest { payment_id: fixture.payment_id(asked).await.to_string() };
    let found = fixture.client.clone().get_payment(fixture.kit.operator(ask)).await.expect("may").into_inner();
    assert_eq!(found.payment.map(|payment| payment.refund_pending_minor), Some(0));
    assert_eq!(found.refunds[0].state(), RefundState::Failed);
}
