//! Each invariant has a violation planted, and the check must find it.

use std::collections::HashMap;

use chassis::Finding;
use inventory::check::Holding;
use order::check::End;
use payment::check::Books;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::compare_stock;
use super::events::{self, Recorded};
use super::money::{self, Theirs};

/// Constraints would refuse what is planted here, so they are taken away first.
async fn plant(db: &PgPool, statements: &[&'static str]) {
    for statement in statements {
        sqlx::query(*statement).execute(db).await.expect(statement);
    }
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn oversold_stock_is_found(db: PgPool) {
    plant(&db, &["insert into stock (sku, available, received) values ('FINE', 5, 5), ('BAD', 5, 5)"]).await;
    assert_eq!(inventory::check::check_stock(&db).await.expect("checked").violations.len(), 0);
    plant(
        &db,
        &[
            "alter table stock drop constraint stock_not_oversold, drop constraint stock_conserved",
            "update stock set available = -1 where sku = 'BAD'",
        ],
    )
    .await;
    let finding = inventory::check::check_stock(&db).await.expect("checked");
    assert_eq!((finding.count, finding.violations.into_keys().collect::<Vec<_>>()), (2, vec!["BAD".to_owned()]));
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn units_that_nobody_reserved_are_found(db: PgPool) {
    plant(&db, &["insert into stock (sku, available, reserved, received) values ('BAD', 4, 1, 5)"]).await;
    assert_eq!(inventory::check::check_stock(&db).await.expect("checked").violations.len(), 1);
}

#[sqlx::test(migrator = "inventory::MIGRATOR")]
async fn a_reservation_that_came_back_to_life_is_found(db: PgPool) {
    plant(
        &db,
        &[
            "insert into reservation (order_id, state, version, created_at, updated_at, checked_at)
             values ('00000000-0000-7000-8000-000000000001', 'SOLD', 2, now(), now(), now())",
            "insert into reservation_history (order_id, version, state, at)
             values ('00000000-0000-7000-8000-000000000001', 1, 'RELEASED', now()),
                    ('00000000-0000-7000-8000-000000000001', 2, 'SOLD', now())",
        ],
    )
    .await;
    assert_eq!(inventory::check::check_reservations(&db).await.expect("checked").violations.len(), 1);
    plant(&db, &["update reservation_history set state = 'SOLD' where version = 1"]).await;
    assert_eq!(
        inventory::check::check_reservations(&db).await.expect("checked").violations.len(),
        1,
        "it began as sold"
    );
    plant(&db, &["update reservation_history set state = 'HELD' where version = 1"]).await;
    assert_eq!(inventory::check::check_reservations(&db).await.expect("checked").violations.len(), 0);
    plant(&db, &["delete from reservation_history"]).await;
    assert_eq!(
        inventory::check::check_reservations(&db).await.expect("checked").violations.len(),
        1,
        "without history"
    );
}

const PAYMENT: &str = "insert into payment
       (payment_id, order_id, user_id, goal, state, currency, amount_minor, payment_method, captured_minor, refunded_minor,
        refund_pending_minor, failure_reason, version, cause_id, wanted_at, attempts, created_at, updated_at)
     values ('00000000-0000-7000-8000-000000000001', gen_random_uuid(), gen_random_uuid(), 'CAPTURED', 'CAPTURED', 'EUR', 100,
        'pm_card_visa', 100, 0, 0, '', 2, gen_random_uuid(), now(), 0, now(), now())";

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn money_that_the_ledger_does_not_know_is_found(db: PgPool) {
    plant(&db, &[PAYMENT]).await;
    assert_eq!(payment::check::check_ledger(&db).await.expect("checked").violations.len(), 1);
    plant(
        &db,
        &["insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
           values ('00000000-0000-7000-8000-000000000001', 'AUTHORIZATION', 'customer', 'held', 'EUR', 100, 'pi_1', now()),
                  ('00000000-0000-7000-8000-000000000001', 'CAPTURE', 'held', 'revenue', 'EUR', 100, 'pi_1', now())"],
    )
    .await;
    assert_eq!(payment::check::check_ledger(&db).await.expect("checked").violations.len(), 0);
    for wrong in [
        "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ('00000000-0000-7000-8000-000000000001', 'REFUND', 'revenue', 'customer', 'EUR', 101, 're_1', now())",
        "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ('00000000-0000-7000-8000-000000000001', 'VOID', 'held', 'customer', 'EUR', 1, 'pi_1', now())",
        "insert into ledger_transfer (payment_id, kind, debit_account, credit_account, currency, minor, ref, created_at)
         values ('00000000-0000-7000-8000-000000000001', 'AUTHORIZATION', 'customer', 'held', 'USD', 1, 'pi_2', now())",
        "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 1, 'PENDING', '', '', 1, now(), now())",
        "insert into refund (refund_id, payment_id, minor, state, actor, reason, call, created_at, updated_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 1, 'DONE', '', '', 1, now(), now())",
    ] {
        let mut tx = db.begin().await.expect("begun");
        sqlx::query(wrong).execute(&mut *tx).await.expect(wrong);
        tx.commit().await.expect("committed");
        assert_eq!(payment::check::check_ledger(&db).await.expect("checked").violations.len(), 1, "{wrong}");
        plant(
            &db,
            &[
                "alter table ledger_transfer disable trigger ledger_transfer_append_only",
                "delete from ledger_transfer where ref in ('re_1', 'pi_2') or kind = 'VOID'",
                "alter table ledger_transfer enable trigger ledger_transfer_append_only",
                "delete from refund",
            ],
        )
        .await;
    }
}

#[sqlx::test(migrator = "payment::MIGRATOR")]
async fn a_payment_that_skipped_a_step_is_found(db: PgPool) {
    plant(
        &db,
        &[
            PAYMENT,
            "insert into payment_history (payment_id, state, at)
             values ('00000000-0000-7000-8000-000000000001', 'PENDING', now()),
                    ('00000000-0000-7000-8000-000000000001', 'CAPTURED', now())",
        ],
    )
    .await;
    assert_eq!(payment::check::check_payments(&db).await.expect("checked").violations.len(), 1);
    plant(&db, &["delete from payment_history"]).await;
    assert_eq!(payment::check::check_payments(&db).await.expect("checked").violations.len(), 1, "without history");
}

#[sqlx::test(migrator = "order::MIGRATOR")]
async fn an_order_that_never_settled_and_one_without_events_are_found(db: PgPool) {
    plant(
        &db,
        &[r#"insert into "order" (order_id, user_id, state, version, currency, total_minor, payment_method, captured,
               refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at)
             values (gen_random_uuid(), gen_random_uuid(), 'PENDING', 1, 'EUR', 100, 'pm_card_visa', false, 0, '', '', '',
               now() - interval '2 minutes', now(), now())"#],
    )
    .await;
    let now = OffsetDateTime::now_utc();
    assert_eq!(order::check::check_settled(&db, now).await.expect("checked").violations.len(), 1);
    assert_eq!(order::check::check_orders(&db).await.expect("checked").violations.len(), 1);
    plant(&db, &[r#"update "order" set state = 'CONFIRMED', updated_at = now() - interval '2 minutes'"#]).await;
    assert_eq!(order::check::check_settled(&db, now).await.expect("checked").violations.len(), 1, "confirmed, unpaid");
    let ends = order::check::ends(&db, now).await.expect("read");
    assert_eq!(ends.into_values().collect::<Vec<_>>(), [End::Sold]);
    plant(&db, &[r#"update "order" set captured = true"#]).await;
    assert_eq!(order::check::check_settled(&db, now).await.expect("checked").violations.len(), 0);
}

#[test]
fn stock_that_does_not_follow_its_order_is_found() {
    let order = Uuid::from_u128(1);
    let look = |end, held: Option<Holding>| {
        let held = held.map(|holding| (order, holding)).into_iter().collect();
        compare_stock(&HashMap::from([(order, end)]), &held).violations.len()
    };
    assert_eq!(look(End::Sold, Some(Holding::Sold)), 0);
    assert_eq!(look(End::Sold, Some(Holding::Held)), 1, "confirmed, and only held");
    assert_eq!(look(End::Sold, None), 1, "confirmed, and nothing sold");
    assert_eq!(look(End::CalledOff, None), 0);
    assert_eq!(look(End::CalledOff, Some(Holding::Held)), 1, "held for nobody");
    assert_eq!(look(End::CalledOff, Some(Holding::Sold)), 1, "sold to nobody");
}

#[test]
fn what_is_wrong_only_once_is_forgiven() {
    let mut first = Finding::new("I0", "things");
    first.look("a", Some("on its way".to_owned()));
    first.look("b", Some("wrong".to_owned()));
    let mut second = Finding::new("I0", "things");
    second.look("b", Some("still wrong".to_owned()));
    second.look("c", Some("on its way".to_owned()));
    second.keep_repeated(&first);
    assert_eq!(second.violations.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "still wrong".to_owned())]);
}

#[test]
fn a_second_capture_and_money_that_was_kept_are_found() {
    let (order, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let books = Books { authorized: 100, captured: 100, at_rest: true, ..Books::default() };
    let theirs = Theirs { authorized: 100, captured: 100, captures: 1, ..Theirs::default() };
    let look = |books: &Books, theirs: &Theirs, end| {
        let (ours, theirs) = (HashMap::from([(order, books.clone())]), HashMap::from([(order, theirs.clone())]));
        money::compare(&ours, &theirs, &HashMap::from([(order, end)])).violations.len()
    };
    assert_eq!(look(&books, &theirs, End::Sold), 0);
    assert_eq!(look(&books, &Theirs { captures: 2, ..theirs.clone() }, End::Sold), 1, "captured twice");
    assert_eq!(look(&books, &Theirs { captured: 0, voided: 100, ..theirs.clone() }, End::Sold), 1, "the books differ");
    assert_eq!(look(&books, &theirs, End::CalledOff), 1, "kept after it was called off");
    let busy = Books { at_rest: false, ..books };
    assert_eq!(look(&busy, &theirs, End::CalledOff), 1, "kept, and nobody gives it back");
    let held = Theirs { captured: 0, captures: 0, ..theirs.clone() };
    assert_eq!(look(&Books { captured: 0, ..busy }, &held, End::CalledOff), 1, "held after it was called off");
    let unknown = HashMap::from([(other, theirs)]);
    assert_eq!(money::compare(&HashMap::new(), &unknown, &HashMap::new()).violations.len(), 1, "unknown to us");
}

#[test]
fn events_that_were_lost_invented_or_swapped_are_found() {
    let key = Uuid::from_u128(1);
    let look = |before: i64, after: i64, waiting: Option<i64>, told: &[i64]| {
        let recorded = Recorded { before: HashMap::from([(key, before)]), after: HashMap::from([(key, after)]) };
        let waiting = waiting.map(|first| (key, first)).into_iter().collect();
        let story = HashMap::from([(key, told.to_vec())]);
        events::compare("souk.test.v1", &recorded, &waiting, &story).violations.len()
    };
    assert_eq!(look(3, 3, None, &[1, 2, 3]), 0);
    assert_eq!(look(3, 3, Some(2), &[1]), 0, "the rest is on its way");
    assert_eq!(look(3, 3, Some(2), &[1, 2]), 0, "acknowledged, and not deleted yet");
    assert_eq!(look(1, 3, None, &[1, 2]), 0, "recorded meanwhile");
    assert_eq!(look(3, 3, None, &[1, 2]), 1, "lost");
    assert_eq!(look(2, 2, None, &[1, 2, 3]), 1, "published without being recorded");
    assert_eq!(look(3, 3, None, &[1, 3, 2]), 1, "swapped");
    let nothing = Recorded { before: HashMap::new(), after: HashMap::new() };
    let invented = HashMap::from([(key, vec![1])]);
    assert_eq!(events::compare("souk.test.v1", &nothing, &HashMap::new(), &invented).violations.len(), 1, "of nobody");
}
