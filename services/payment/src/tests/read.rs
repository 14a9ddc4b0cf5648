use contracts::souk::payment::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, reason};
use tonic::Code;
use uuid::Uuid;

use super::Fixture;

impl Fixture {
    pub(super) async fn payment_id(&self, order_id: Uuid) -> Uuid {
        let id = sqlx::query_scalar!("select payment_id from payment where order_id = $1", order_id);
        id.fetch_one(&self.service.db).await.expect("a payment")
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn people_see_their_own_payments_and_operators_the_ledger(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.reserved("pm_card_visa").await;
    fixture.work().await;
    let list = |order_id: String| ListPaymentsRequest { order_id, ..Default::default() };
    let mine = fixture
        .client
        .clone()
        .list_payments(fixture.kit.customer(CUSTOMER, list(String::new())))
        .await
        .expect("theirs");
    let mine = mine.into_inner().payments;
    assert_eq!((mine.len(), mine[0].state()), (1, PaymentState::Authorized));
    let by_order = list(order.to_string());
    let same =
        fixture.client.clone().list_payments(fixture.kit.customer(CUSTOMER, by_order.clone())).await.expect("theirs");
    assert_eq!(same.into_inner().payments, mine);
    let operators = fixture.client.clone().list_payments(fixture.kit.operator(by_order.clone())).await.expect("may");
    assert_eq!(operators.into_inner().payments, mine);
    let none =
        fixture.client.clone().list_payments(fixture.kit.customer(Uuid::now_v7(), by_order)).await.expect("empty");
    assert_eq!(none.into_inner().payments, []);

    let ask = GetPaymentRequest { payment_id: mine[0].payment_id.clone() };
    let stranger =
        fixture.client.clone().get_payment(fixture.kit.customer(Uuid::now_v7(), ask.clone())).await.expect_err("no");
    assert_eq!((stranger.code(), reason(&stranger)), (Code::NotFound, "PAYMENT_NOT_FOUND@souk.payment".into()));
    fixture.client.clone().get_payment(fixture.kit.customer(CUSTOMER, ask)).await.expect("theirs");

    let ask = GetLedgerRequest { payment_id: mine[0].payment_id.clone() };
    let ledger = fixture.client.clone().get_ledger(fixture.kit.operator(ask.clone())).await.expect("may").into_inner();
    let customer = format!("customer:{CUSTOMER}");
    assert_eq!(ledger.transfers[0].debit_account, customer);
    let refused =
        fixture.client.clone().get_ledger(fixture.kit.customer(CUSTOMER, ask)).await.expect_err("operators only");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
