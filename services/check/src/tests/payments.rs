//! I3 and I9: the ledger, payments and their histories.

use sqlx::PgPool;
use uuid::Uuid;

use super::{RANGE, ROWS, WRONG, assert_found, by_ranges, for_each};

fn payment(it: Uuid) -> String {
    format!(
        "insert into payment
           (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor, refunded_minor,
            refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts, created_at, updated_at)
         values ('{it}', '{it}', gen_random_uuid(), 'CAPTURED', 'CAPTURED', 'EUR', 100, 'pm_card_visa', 100, 0, 0, '', 2,
            gen_random_uuid(), now(), 0, now(), now())"
    )
}

fn transfer(it: Uuid, kind: &str, from: &str, currency: &str, minor: i64) -> String {
    format!(
        "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ('{it}', '{kind}', '{from}', 'elsewhere', '{currency}', {minor}, 'x{minor}', now())"
    )
}

fn refund(it: Uuid, state: &str) -> String {
    format!(
        "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
         values (gen_random_uuid(), '{it}', 1, '{state}', '', '', 1, now(), now())"
    )
}

/// A captured payment and its transfers in the ledger.
pub(super) fn paid(it: Uuid) -> [String; 3] {
    let (held, captured) =
        (transfer(it, "AUTHORIZATION", "x", "EUR", 100), transfer(it, "CAPTURE", "held", "EUR", 100));
    [payment(it), held, captured]
}

async fn plant_in_ledger<const N: usize>(db: PgPool, violation: fn(Uuid) -> [String; N]) {
    let check = async || {
        let end = async |after| payment::check::range_end(&db, after, RANGE).await;
        by_ranges(end, async |range| payment::check::check_ledger(&db, range).await).await
    };
    assert_found(&db, for_each(1..=ROWS, paid), for_each(WRONG, violation), WRONG.len(), check).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn captured_money_that_is_not_in_the_ledger(db: PgPool) {
    plant_in_ledger(db, |it| {
        let delete = format!("delete from ledger_transfer where payment_id = '{it}' and kind = 'CAPTURE'");
        ["alter table ledger_transfer disable trigger all".to_owned(), delete]
    })
    .await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn more_refunded_than_was_captured(db: PgPool) {
    plant_in_ledger(db, |it| [transfer(it, "REFUND", "revenue", "EUR", 101)]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn more_voided_than_was_held(db: PgPool) {
    plant_in_ledger(db, |it| [transfer(it, "VOID", "held", "EUR", 1)]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_pending_refund_that_reserves_nothing(db: PgPool) {
    plant_in_ledger(db, |it| [refund(it, "PENDING")]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_refund_that_is_not_in_the_ledger(db: PgPool) {
    plant_in_ledger(db, |it| [refund(it, "DONE")]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn money_of_another_currency(db: PgPool) {
    plant_in_ledger(db, |it| [transfer(it, "AUTHORIZATION", "x", "USD", 1)]).await;
}

async fn plant_in_returns(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let returned = |it: Uuid| {
        let [payment, held, captured] = paid(it);
        let row = format!(
            "insert into order_return (payment_id, number, asked_minor, minor, refund_id, created_at)
             values ('{it}', 1, 70, 50, '{it}', now()), ('{it}', 2, 70, 0, null, now())"
        );
        [payment, held, captured, refund_of_return(it, it), row]
    };
    let check = async || {
        let end = async |after| payment::check::range_end(&db, after, RANGE).await;
        by_ranges(end, async |range| payment::check::check_returns(&db, range).await).await
    };
    assert_found(&db, for_each(1..=ROWS, returned), for_each(WRONG, violation), WRONG.len(), check).await;
}

fn refund_of_return(it: Uuid, refund_id: Uuid) -> String {
    format!(
        "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
         values ('{refund_id}', '{it}', 50, 'PENDING', '', 'ORDER_RETURN', 1, now(), now())"
    )
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_return_whose_refund_is_of_another_amount(db: PgPool) {
    plant_in_returns(db, |it| [format!("update refund set minor = 49 where refund_id = '{it}'")]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_second_refund_of_a_return(db: PgPool) {
    plant_in_returns(db, |it| [refund_of_return(it, Uuid::now_v7())]).await;
}

async fn plant_in_payments(db: PgPool, violation: fn(Uuid) -> [String; 1]) {
    let history = |it| {
        format!(
            "insert into payment_history (payment_id, state, at) select '{it}', state, now()
             from unnest(array['PENDING', 'AUTHORIZING', 'AUTHORIZED', 'CAPTURING', 'CAPTURED']) as state"
        )
    };
    let sound = for_each(1..=ROWS, |it| [payment(it), history(it)]);
    let check = async || {
        let end = async |after| payment::check::history_end(&db, after, RANGE).await;
        by_ranges(end, async |range| payment::check::check_payments(&db, range).await).await
    };
    assert_found(&db, sound, for_each(WRONG, violation), WRONG.len(), check).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_payment_that_skipped_a_step(db: PgPool) {
    plant_in_payments(db, |it| {
        [format!("delete from payment_history where payment_id = '{it}' and state like 'AUTHORIZ%'")]
    })
    .await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_payment_without_a_history(db: PgPool) {
    plant_in_payments(db, |it| [format!("delete from payment_history where payment_id = '{it}'")]).await;
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_history_without_a_payment(db: PgPool) {
    plant_in_payments(db, |it| [format!("delete from payment where payment_id = '{it}'")]).await;
}
