//! Each change happens once or not at all.

use contracts::souk::payment::v1::*;
use sqlx::PgPool;
use testkit::try_key;

use super::Fixture;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn giving_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    let request = RefundPaymentRequest {
        request_id: "k1".into(),
        payment_id: fixture.payment_id(order).await.to_string(),
        amount_minor: Some(1_000),
        reason: RefundReason::CustomerRequest.into(),
        full_refund: false,
    };
    let other = RefundPaymentRequest { amount_minor: None, full_refund: true, ..request.clone() };
    try_key(&fixture.service.db, request, other, |request| {
        let (mut client, request) = (fixture.client.clone(), fixture.kit.operator(request));
        async move { Ok(client.refund_payment(request).await?.into_inner()) }
    })
    .await;
    assert_eq!(fixture.refunds(order).await, [(1_000, "PENDING".to_owned())]);
}
