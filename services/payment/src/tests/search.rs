use chassis::Next;
use contracts::souk::payment::v1::*;
use provider::webhook::sign;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
use tonic::{Code, Status};
use uuid::Uuid;

use super::order_return::{euros, returned};
use super::{Fixture, SECRET};
use crate::reconcile::compare_reported;

impl Fixture {
    async fn search(&self, request: SearchPaymentsRequest) -> Result<SearchPaymentsResponse, Status> {
        Ok(self.client.clone().search_payments(self.kit.operator(request)).await?.into_inner())
    }

    /// The orders of the payments that are found.
    async fn found(&self, request: SearchPaymentsRequest) -> Vec<String> {
        let payments = self.search(request).await.expect("found").payments.into_iter();
        payments.map(|it| it.payment.expect("a payment").order_id).collect()
    }
}

fn texts<const N: usize>(orders: [Uuid; N]) -> Vec<String> {
    orders.map(|order| order.to_string()).to_vec()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn payments_are_found_by_state_difference_and_dispute(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (captured, disputed) =
        (fixture.captured("pm_card_visa").await, fixture.captured("pm_card_createDispute").await);
    let declined = fixture.reserved("pm_card_chargeDeclined").await;
    fixture.work().await;
    fixture.compare().await;
    sqlx::query!("update payment set difference = 'refunded' where order_id = $1", captured)
        .execute(&fixture.service.db)
        .await
        .expect("as a comparison records it");

    let any = SearchPaymentsRequest::default;
    assert_eq!(fixture.found(any()).await, texts([declined, disputed, captured]));
    let of = |state: PaymentState| SearchPaymentsRequest { state: state.into(), ..any() };
    assert_eq!(fixture.found(of(PaymentState::Declined)).await, texts([declined]));
    assert_eq!(fixture.found(of(PaymentState::Captured)).await, texts([disputed, captured]));
    assert_eq!(fixture.found(of(PaymentState::Voided)).await, texts([]));
    let page = fixture.search(SearchPaymentsRequest { differing: true, ..any() }).await.expect("found").payments;
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].difference.as_str(), page[0].disputed), ("refunded", false));
    let page = fixture.search(SearchPaymentsRequest { disputed: true, ..any() }).await.expect("found").payments;
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].difference.as_str(), page[0].disputed), ("", true));
    assert_eq!(fixture.found(SearchPaymentsRequest { disputed: true, differing: true, ..any() }).await, texts([]));

    let (mut found, mut token) = (vec![], String::new());
    loop {
        let page =
            fixture.search(SearchPaymentsRequest { page_size: 1, page_token: token, ..any() }).await.expect("a page");
        found.extend(page.payments.into_iter().map(|it| it.payment.expect("a payment").order_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, texts([declined, disputed, captured]));
}

/// A dispute that is over at the provider is over here.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_charge_is_disputed_as_long_as_the_provider_says_so(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let mut deliveries = fixture.listen().await;
    let (disputed, other) = (fixture.captured("pm_card_createDispute").await, fixture.captured("pm_card_visa").await);
    sqlx::query!("update payment set disputed = true where order_id = $1", other)
        .execute(&fixture.service.db)
        .await
        .expect("as the provider said before");
    loop {
        let (_, body) = deliveries.recv().await.expect("a webhook");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if event["type"] == "charge.dispute.created" {
            fixture.report(&sign(SECRET, fixture.now(), &body), &body).await.expect("taken");
            break;
        }
    }
    assert_eq!(compare_reported(fixture.service.clone()).await.expect("compared"), Next::AtOnce);
    let disputes = SearchPaymentsRequest { disputed: true, ..Default::default() };
    assert_eq!(fixture.found(disputes.clone()).await, texts([other, disputed]));
    fixture.compare().await;
    assert_eq!(fixture.found(disputes).await, texts([disputed]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_not_refunded_is_found(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let refused = fixture.captured("pm_card_createDispute").await;
    let (short, none) = (fixture.captured("pm_card_visa").await, fixture.captured("pm_card_visa").await);
    let both = fixture.captured("pm_souk_refund_fails").await;
    for (order, key) in [(short, "k1"), (none, "k2"), (both, "k3")] {
        fixture.refund(order, key, Some(2_000)).await.expect("reserved");
        fixture.work().await;
    }
    fixture.refund(both, "k4", Some(2_000)).await.expect("the first was refused");
    for order in [refused, none] {
        fixture.kit.deliver(returned(order, 1, euros(500))).await;
    }
    for order in [short, both] {
        fixture.kit.deliver(returned(order, 1, euros(700))).await;
    }
    fixture.work().await;
    let of = |refund_failed, return_short| SearchPaymentsRequest { refund_failed, return_short, ..Default::default() };
    assert_eq!(fixture.found(of(true, false)).await, texts([both, refused]));
    assert_eq!(fixture.found(of(false, true)).await, texts([both, short]));
    assert_eq!(fixture.found(of(true, true)).await, texts([both]));
    let page = fixture.search(SearchPaymentsRequest { page_size: 1, ..of(true, false) }).await.expect("a page");
    let next = SearchPaymentsRequest { page_token: page.next_page_token, ..of(true, false) };
    assert_eq!(fixture.found(next).await, texts([refused]));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_search_is_for_operators_and_checks_its_fields(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let request = fixture.kit.customer(CUSTOMER, SearchPaymentsRequest::default());
    let refused = fixture.client.clone().search_payments(request).await.expect_err("operators");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let odd = SearchPaymentsRequest { state: 99, page_size: -1, ..Default::default() };
    assert_eq!(fields(&fixture.search(odd).await.expect_err("both are wrong")), ["state", "page_size"]);
    let forged = SearchPaymentsRequest { page_token: "forged".into(), ..Default::default() };
    assert_eq!(reason(&fixture.search(forged).await.expect_err("forged")), "PAGE_TOKEN_INVALID@souk.payment");
}
