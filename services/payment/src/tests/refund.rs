use chassis::Next;
use contracts::souk::payment::v1::*;
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, reason};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::Fixture;
use crate::claim::claim;
use crate::drive::{drive, drive_claimed};

impl Fixture {
    /// `amount_minor`: None is a full refund.
    pub(super) async fn refund(
        &self,
        order_id: Uuid,
        key: &str,
        amount_minor: Option<i64>,
    ) -> Result<RefundPaymentResponse, Status> {
        let payment_id = self.payment_id(order_id).await.to_string();
        let request = self.ask(payment_id, key, amount_minor);
        Ok(self.client.clone().refund_payment(request).await?.into_inner())
    }

    fn ask(&self, payment_id: String, key: &str, amount_minor: Option<i64>) -> Request<RefundPaymentRequest> {
        let (request_id, reason) = (key.to_owned(), RefundReason::CustomerRequest.into());
        let full_refund = amount_minor.is_none();
        self.kit.operator(RefundPaymentRequest { request_id, payment_id, amount_minor, reason, full_refund })
    }

    /// Amounts and states, oldest first.
    pub(super) async fn refunds(&self, order_id: Uuid) -> Vec<(i64, String)> {
        let rows = sqlx::query!(
            "select refund.minor, refund.state from refund join payment using (payment_id)
             where order_id = $1 order by refund_id",
            order_id,
        );
        rows.fetch_all(&self.service.db).await.expect("rows").into_iter().map(|row| (row.minor, row.state)).collect()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_part_goes_back_then_the_rest_and_never_more(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let response = fixture.refund(order, "k1", Some(1_000)).await.expect("reserved");
    let (payment, refund) = (response.payment.clone().expect("it"), response.refund.clone().expect("it"));
    assert_eq!((payment.refund_pending_minor, payment.refunded_minor), (1_000, 0), "the provider is asked afterwards");
    assert_eq!((refund.state(), refund.reason()), (RefundState::Pending, RefundReason::CustomerRequest));
    assert_eq!(
        fixture.refund(order, "k1", Some(1_000)).await.expect("the same"),
        response,
        "the same key, the same response"
    );
    fixture.work().await;
    assert_eq!(fixture.refund(order, "k1", Some(1_000)).await.expect("the same"), response, "also afterwards");

    let refused = fixture.refund(order, "k2", Some(1_501)).await.expect_err("more than is left");
    assert_eq!(reason(&refused), "REFUND_EXCEEDS_CAPTURE@souk.payment");
    fixture.refund(order, "k3", None).await.expect("the rest");
    fixture.work().await;
    let refused = fixture.refund(order, "k4", None).await.expect_err("nothing is left");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "REFUND_EXCEEDS_CAPTURE@souk.payment".into())
    );

    assert_eq!(fixture.ours(order).await[2..], [("REFUND".to_owned(), 1_000), ("REFUND".to_owned(), 1_500)]);
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    let events = ["PaymentAuthorized", "PaymentCaptured", "PaymentRefunded", "PaymentRefunded"];
    assert_eq!(fixture.published(order).await, events);
    let records = testkit::published(&fixture.service.db).await;
    let last = records.last().expect("events");
    assert!(last.actor.starts_with("operator:"), "who asked for it is who did it: {}", last.actor);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn refunds_at_the_same_time_give_back_what_was_captured_and_no_more(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let payment_id = fixture.payment_id(order).await.to_string();
    let mut crowd = JoinSet::new();
    for key in 0..12 {
        let (mut client, ask) =
            (fixture.client.clone(), fixture.ask(payment_id.clone(), &format!("k{key}"), Some(400)));
        crowd.spawn(async move { client.refund_payment(ask).await });
    }
    let responses = crowd.join_all().await;
    assert_eq!(responses.iter().filter(|response| response.is_ok()).count(), 6, "6 x 400 of 2500");
    for refused in responses.into_iter().filter_map(Result::err) {
        assert_eq!(reason(&refused), "REFUND_EXCEEDS_CAPTURE@souk.payment");
    }
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, vec![(400, "DONE".to_owned()); 6]);
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_operators_give_back_and_only_what_was_captured(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    let refused = fixture.refund(order, "k1", None).await.expect_err("it is only held");
    assert_eq!(reason(&refused), "PAYMENT_NOT_CAPTURED@souk.payment");
    let nobody = fixture.client.clone().refund_payment(fixture.ask(Uuid::now_v7().to_string(), "k2", None)).await;
    assert_eq!(reason(&nobody.expect_err("there is none")), "PAYMENT_NOT_FOUND@souk.payment");
    let payment_id = fixture.payment_id(order).await.to_string();
    let keyless = fixture.client.clone().refund_payment(fixture.ask(payment_id.clone(), "", None)).await;
    assert_eq!(reason(&keyless.expect_err("no key")), "IDEMPOTENCY_KEY_REQUIRED@souk.payment");
    for reason in [RefundReason::Unspecified, RefundReason::OrderEnded, RefundReason::AtProvider] {
        let mut ask = fixture.ask(payment_id.clone(), "k3", None);
        ask.get_mut().reason = reason.into();
        let refused = fixture.client.clone().refund_payment(ask).await.expect_err("not for callers");
        assert_eq!(testkit::fields(&refused), ["reason"]);
    }
    let ask = fixture.ask(payment_id, "k4", None).into_inner();
    let refused =
        fixture.client.clone().refund_payment(fixture.kit.customer(CUSTOMER, ask)).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// An amount that was forgotten or misspelt must not refund everything.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_amount_or_a_full_refund_is_said_and_not_both(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let payment_id = fixture.payment_id(order).await.to_string();
    let refund = async |amount_minor: Option<i64>, full_refund: bool| {
        let mut ask = fixture.ask(payment_id.clone(), "k1", amount_minor);
        ask.get_mut().full_refund = full_refund;
        fixture.client.clone().refund_payment(ask).await.map(|response| response.into_inner().refund)
    };
    for (amount_minor, full_refund) in [(None, false), (Some(400), true)] {
        let refused = refund(amount_minor, full_refund).await.expect_err("neither, or both");
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "REQUEST_INVALID@souk.payment".into()));
        assert_eq!(testkit::fields(&refused), ["amount_minor", "full_refund"]);
    }
    for amount_minor in [-1, 0] {
        let refused = refund(Some(amount_minor), false).await.expect_err("it is no amount");
        assert_eq!(testkit::fields(&refused), ["amount_minor"]);
    }
    assert_eq!(fixture.refunds(order).await, [], "nothing was reserved");
    let all = refund(None, true).await.expect("all of it, and the key is not used up").expect("a refund");
    assert_eq!(all.amount, Some(Money::new("EUR", 2_500)));
}

/// The order ends during a refund of a part: the rest is refunded too, once.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_that_ends_refunds_what_was_not_requested_yet(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.refund(order, "k1", Some(700)).await.expect("reserved");
    fixture.cancelled(order).await;
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [(700, "DONE".to_owned()), (1_800, "DONE".to_owned())]);
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

/// What is recorded of one call must not undo what was reserved while it was under way.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_requested_during_the_call_of_another_is_made_too(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.refund(order, "k1", Some(700)).await.expect("reserved");
    let claimed = claim(&fixture.service).await.expect("the database is there").expect("it is due");
    fixture.refund(order, "k2", Some(800)).await.expect("reserved");
    fixture.cancelled(order).await;
    drive_claimed(&fixture.service, claimed).await.expect("driven");
    let (done, pending) = ((700, "DONE".to_owned()), (800, "PENDING".to_owned()));
    assert_eq!(fixture.refunds(order).await[..2], [done, pending]);
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [700, 800, 1_000].map(|minor| (minor, "DONE".to_owned())));
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_that_is_refused_for_good_is_requested_by_operators_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_createDispute").await;
    fixture.cancelled(order).await;
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [(2_500, "FAILED".to_owned())], "once");
    let shown = || async {
        let ask = GetPaymentRequest { payment_id: fixture.payment_id(order).await.to_string() };
        fixture.client.clone().get_payment(fixture.kit.operator(ask)).await.expect("it is there").into_inner()
    };
    assert_eq!(shown().await.payment.expect("it").refund_refusal, "DISPUTED");
    fixture.kit.context.clock.advance(std::time::Duration::from_secs(3_600));
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await.len(), 1, "and not again");

    fixture.refund(order, "k1", Some(2_500)).await.expect("an operator may try");
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await.len(), 2);
    assert_eq!(shown().await.refunds.len(), 2);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_refund_is_not_requested_without_end(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (once, often) =
        (fixture.captured("pm_souk_refund_fails").await, fixture.captured("pm_souk_refund_fails").await);
    let sql = "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
               select gen_random_uuid(), payment_id, 1, 'FAILED', 'service:payment', 'ORDER_ENDED', 1, now(), now()
               from payment, generate_series(1, 9) where order_id = $1";
    sqlx::query(sql).bind(often).execute(&fixture.service.db).await.expect("refused nine times before");
    for order in [once, often] {
        fixture.cancelled(order).await;
    }
    while drive(fixture.service.clone()).await.expect("the database is there") == Next::AtOnce {}
    fixture.kit.context.clock.advance(std::time::Duration::from_secs(601));
    fixture.work().await;
    assert_eq!(fixture.refunds(once).await.last(), Some(&(2_500, "DONE".to_owned())), "one refusal is not for good");
    assert_eq!(fixture.refunds(often).await.len(), 10);
    let refusal = sqlx::query_scalar::<_, String>("select refund_refusal from payment where order_id = $1");
    assert_eq!(refusal.bind(often).fetch_one(&fixture.service.db).await.expect("a payment"), "REFUSED_AGAIN_AND_AGAIN");
}
