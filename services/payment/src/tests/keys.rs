//! Each change happens once or not at all.

use contracts::souk::payment::v1::*;
use sqlx::PgPool;
use testkit::try_key;

use super::Till;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn giving_back(db: PgPool) {
    let till = Till::open(db).await;
    let order = till.captured("pm_card_visa").await;
    let request = RefundPaymentRequest {
        request_id: "k1".into(),
        payment_id: till.payment_id(order).await.to_string(),
        amount_minor: Some(1_000),
        reason: RefundReason::CustomerRequest.into(),
        full_refund: false,
    };
    let other = RefundPaymentRequest { amount_minor: None, full_refund: true, ..request.clone() };
    try_key(&till.service.db, request, other, |request| {
        let (mut client, request) = (till.client.clone(), till.kit.operator(request));
        async move { Ok(client.refund_payment(request).await?.into_inner()) }
    })
    .await;
    assert_eq!(till.refunds(order).await, [(1_000, "PENDING".to_owned())]);
}
