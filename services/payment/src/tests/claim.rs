use sqlx::PgPool;
use testkit::{one_session, rows_read};

use super::Fixture;
use crate::claim::claim;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_does_not_read_the_payments_that_are_not_due(db: PgPool) {
    let fixture = Fixture::open(one_session(&db).await).await;
    for _ in 0..2 {
        fixture.reserved("pm_card_visa").await;
    }
    let session = &fixture.service.db;
    sqlx::query(
        "insert into payment (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor,
           refunded_minor, refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts, created_at, updated_at)
         select gen_random_uuid(), gen_random_uuid(), user_id, goal, 'VOIDED', currency, amount_minor, payment_method, 0,
           0, 0, '', 1, cause_id, wanted_at, 1, created_at, updated_at
         from payment, generate_series(1, 2000)",
    )
    .execute(session)
    .await
    .expect("they are inserted");
    let before = rows_read(session, "payment").await;
    let claimed = claim(&fixture.service).await.expect("the database is there").expect("it is due");
    assert!(claimed.payment.others_are_due);
    assert!(claim(&fixture.service).await.expect("the database is there").is_some());
    let rows = rows_read(session, "payment").await - before;
    assert!(rows < 100, "it has read {rows} rows");
}
