//! I2 and I4: the provider's movements against the ledger, and refunds as the order service knows them.

use std::collections::HashMap;

use chassis::check::{Exemptions, Finding};
use order::check::Settled;
use payment::check::{LedgerSums, Movements};
use uuid::Uuid;

use super::assert_each_found;
use crate::orders::compare_refunds;
use crate::provider::compare;

#[test]
fn money_that_is_not_where_the_books_say() {
    let name = |name: &str| name.to_owned();
    let books = LedgerSums { intent_id: Some(name("pi_1")), authorized: 100, captured: 100, ..LedgerSums::default() };
    let moved = Movements { intent_id: name("pi_1"), authorized: 100, captured: 100, ..Movements::default() };
    let check = |books: Option<&LedgerSums>, moved: &Movements, end| {
        let mut finding = Finding::new("I2", "orders at the provider");
        finding.add("an order", compare(books, moved, Some(end)).map(str::to_owned));
        finding
    };
    let sound = || check(Some(&books), &moved, Settled::Sold);
    let second_intent = Movements { intent_id: name("pi_2"), ..moved.clone() };
    let voided = Movements { captured: 0, voided: 100, ..moved.clone() };
    let refunded = LedgerSums { refunded: 100, ..books.clone() };
    let refunding = Movements { refunding: 100, ..moved.clone() };
    let held = Movements { captured: 0, ..moved.clone() };
    let busy = LedgerSums { is_due: true, ..books.clone() };
    let under_way = || check(Some(&busy), &refunding, Settled::Unsold);
    assert_each_found(vec![
        ("an order that was captured twice", sound(), check(Some(&books), &second_intent, Settled::Sold)),
        ("books that differ from the provider's", sound(), check(Some(&books), &voided, Settled::Sold)),
        (
            "a refund in the books that has not arrived",
            under_way(),
            check(Some(&refunded), &refunding, Settled::Unsold),
        ),
        ("captured money of an unsold order", sound(), check(Some(&books), &moved, Settled::Unsold)),
        ("such money, while its payment is driven", sound(), check(Some(&busy), &moved, Settled::Unsold)),
        (
            "an authorization of an unsold order",
            sound(),
            check(Some(&LedgerSums { captured: 0, ..busy.clone() }), &held, Settled::Unsold),
        ),
        ("money that is not in the books", sound(), check(None, &moved, Settled::Sold)),
    ]);
}

#[test]
fn a_refund_that_the_order_service_does_not_know() {
    let order = Uuid::from_u128(1);
    let check = |ours: i64, theirs: Option<i64>| {
        let theirs = theirs.map(|said| (order, said)).into_iter().collect();
        compare_refunds(&HashMap::from([(order, ours)]), &theirs, &Exemptions::default())
    };
    let sound = || check(100, Some(100));
    assert_each_found(vec![
        ("a refund that the order lacks", sound(), check(100, Some(0))),
        ("a refund that failed, and the order still has it", sound(), check(0, Some(100))),
        ("a refund of an order that is not there", sound(), check(100, None)),
    ]);
}
