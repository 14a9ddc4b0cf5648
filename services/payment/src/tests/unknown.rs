//! The unknown outcome of a call is read from the provider, whatever it has stored under the key.

use std::time::Duration;

use contracts::souk::payment::v1::*;
use provider::outcome::SLOW;
use sqlx::PgPool;

use super::Till;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_error_that_is_kept_and_had_no_effect_is_passed_by_under_another_key(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_souk_error_without_effect").await;
    till.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE"], &["PaymentAuthorized", "PaymentCaptured"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_amount_that_the_provider_does_not_take_is_a_decline(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.reserved("pm_card_visa").await;
    sqlx::query("update payment set amount_minor = 1").execute(&till.service.db).await.expect("less than it takes");
    till.work().await;
    till.expect(order, "DECLINED", &[], &["PaymentDeclined"]).await;
    let why = sqlx::query_scalar!("select failure_reason from payment where order_id = $1", order);
    assert_eq!(why.fetch_one(&till.service.db).await.expect("a payment"), "PAYMENT_REFUSED");
}

/// Left as it is, the intent could still be confirmed by a call that was on its way.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_the_provider_refuses_to_confirm_is_withdrawn(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.reserved("pm_souk_confirm_refused").await;
    till.work().await;
    till.expect(order, "DECLINED", &[], &["PaymentDeclined"]).await;
    assert_eq!(till.intent(order).await["status"], "canceled");
}

/// The provider refused the capture and went on holding the amount.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_a_refused_capture_still_holds_is_let_go_before_that_is_written_down(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_souk_capture_declined").await;
    till.expect(order, "FAILED", &["AUTHORIZATION", "VOID"], &["PaymentAuthorized", "PaymentCaptureFailed"]).await;
}

/// The confirmation times out, does not show when it is asked for, and takes effect just before the cancellation.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_hold_that_came_and_went_unseen_is_in_the_books(db: PgPool) {
    let till = Till::open_with(db, Duration::from_millis(300), |_| {}).await;
    let order = till.reserved("pm_souk_late_confirm").await;
    crate::drive::drive(till.service.clone()).await.expect("driven");
    assert_eq!(till.state(order).await, "AUTHORIZING", "the outcome is unknown");
    till.cancelled(order).await;
    till.work().await;
    till.expect(order, "VOIDED", &["AUTHORIZATION", "VOID"], &["PaymentVoided"]).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_whose_outcome_is_unknown_is_looked_up_and_never_given_twice(db: PgPool) {
    for method in ["pm_souk_refund_timeout", "pm_souk_refund_error"] {
        let till = Till::open_with(db.clone(), Duration::from_millis(300), |_| {}).await;
        let order = till.captured(method).await;
        till.refund(order, method, Some(1_000)).await.expect("reserved");
        till.work().await;
        assert_eq!(till.refunds(order).await, [(1_000, "DONE".to_owned())], "{method}");
        assert_eq!(till.ours(order).await, till.theirs(order).await);
        assert_eq!(till.ours(order).await.last(), Some(&("REFUND".to_owned(), 1_000)));
    }
}

/// It does not show while it is under way, so it is asked for again, which is harmless under the same key alone.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_is_slow_to_show_is_not_given_twice(db: PgPool) {
    let till = Till::open_with(db, Duration::from_millis(300), |_| {}).await;
    let order = till.captured("pm_souk_slow_refund").await;
    till.refund(order, "k1", Some(1_000)).await.expect("reserved");
    for _ in 0..2 {
        crate::drive::drive(till.service.clone()).await.expect("driven");
        assert_eq!(till.refunds(order).await, [(1_000, "PENDING".to_owned())], "the outcome is unknown");
        till.kit.context.clock.advance(Duration::from_secs(1));
    }
    // Just as slow, and begun later: when this one is answered, all that came of the others shows.
    till.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", "1")]).await;
    assert_eq!(till.theirs(order).await[2..], [("REFUND".to_owned(), 1_000), ("REFUND".to_owned(), 1)]);
    till.work().await;
    assert_eq!(till.refunds(order).await, [(1_000, "DONE".to_owned())]);
    assert_eq!(till.ours(order).await[2..], [("REFUND".to_owned(), 1_000)]);
}

/// Its amount would be refunded twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_list_that_does_not_name_a_refund_is_no_proof_against_it(db: PgPool) {
    let till = Till::open_with(db, Duration::from_millis(300), |_| {}).await;
    let order = till.captured("pm_souk_refund_unlisted").await;
    till.refund(order, "k1", Some(1_000)).await.expect("reserved");
    for _ in 0..2 {
        crate::drive::drive(till.service.clone()).await.expect("driven");
        assert_eq!(till.refunds(order).await, [(1_000, "PENDING".to_owned())], "the outcome is unknown");
        till.kit.context.clock.advance(Duration::from_secs(61));
    }
    assert_eq!(till.theirs(order).await[2..], [("REFUND".to_owned(), 1_000)], "refunded once");
}

/// Ours was asked for and never arrived; what was refunded was refunded at the provider itself.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_made_elsewhere_does_not_stand_in_the_way_of_ours(db: PgPool) {
    let till = Till::open(db).await;
    for (elsewhere, state) in [("700", "DONE"), ("2500", "FAILED")] {
        let order = till.captured("pm_card_visa").await;
        till.refund(order, elsewhere, Some(1_000)).await.expect("reserved");
        let tried_at = till.kit.context.clock.now() - Duration::from_secs(61);
        let asked = sqlx::query("update refund set tried_at = $1 where state = 'PENDING'").bind(tried_at);
        asked.execute(&till.service.db).await.expect("as if it had been asked for");
        till.at_provider(order, "/v1/refunds", &[("payment_intent", "INTENT"), ("amount", elsewhere)]).await;
        till.work().await;
        assert_eq!(till.refunds(order).await, [(1_000, state.to_owned())]);
        till.compare().await;
        till.work().await;
        let (mut ours, mut theirs) = (till.ours(order).await, till.theirs(order).await);
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "and it is in the books");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_pending_refund_is_booked_when_it_has_arrived(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_card_pendingRefund").await;
    till.refund(order, "k1", None).await.expect("reserved");
    crate::drive::drive(till.service.clone()).await.expect("driven");
    assert_eq!(till.refunds(order).await, [(2_500, "PENDING".to_owned())]);
    assert_eq!(till.ours(order).await.len(), 2, "nothing is booked yet");
    let arrived = async {
        while till.theirs(order).await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(2 * SLOW, arrived).await.expect("it arrives");
    till.kit.context.clock.advance(Duration::from_secs(61));
    till.work().await;
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    till.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;
}

/// What was reserved is free again; an order that ended goes on asking.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_failed_is_asked_for_again_by_an_order_that_ended(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_souk_refund_fails").await;
    till.cancelled(order).await;
    crate::drive::drive(till.service.clone()).await.expect("driven");
    assert_eq!(till.refunds(order).await, [(2_500, "FAILED".to_owned())]);
    till.kit.context.clock.advance(Duration::from_secs(61));
    assert_eq!(crate::drive::count_behind(&till.service).await.expect("counted"), 1, "and it shows");
    till.work().await;
    assert_eq!(till.refunds(order).await, [(2_500, "FAILED".to_owned()), (2_500, "DONE".to_owned())]);
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded"];
    till.expect(order, "CAPTURED", &["AUTHORIZATION", "CAPTURE", "REFUND"], &events).await;

    let asked = till.captured("pm_souk_refund_fails").await;
    till.refund(asked, "k1", Some(500)).await.expect("reserved");
    till.work().await;
    assert_eq!(till.refunds(asked).await, [(500, "FAILED".to_owned())], "it is not attempted again");
    let ask = GetPaymentRequest { payment_id: till.payment_id(asked).await.to_string() };
    let found = till.client.clone().get_payment(till.kit.operator(ask)).await.expect("may").into_inner();
    assert_eq!(found.payment.map(|payment| payment.refund_pending_minor), Some(0));
    assert_eq!(found.refunds[0].state(), RefundState::Failed);
}
