//! I6 and I8: the clients' journal against the orders.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::assert_each_found;
use crate::journal::{self, Attempt, Outcome};

fn attempt(key: &str, outcome: Outcome, order_id: Option<Uuid>) -> Attempt {
    Attempt { attempt: Value::from(1), key: key.to_owned(), operation: "create".to_owned(), outcome, order_id }
}

#[test]
fn orders_that_are_not_what_clients_saw() {
    let (order, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let fine = || vec![attempt("k1", Outcome::Unknown, None), attempt("k1", Outcome::Ok, Some(order))];
    let orders = HashSet::from([order]);
    let made = [("k1".to_owned(), order)];
    let once = |attempts: &[Attempt], made: &[(String, Uuid)], orders: &[Uuid]| {
        let mut finding = journal::check_once(attempts, made);
        journal::find_unattempted(&mut finding, &made.iter().map(|it| it.1).collect(), orders.to_vec());
        finding
    };
    let sound = || once(&fine(), &made, &[order]);
    let twice = [made[0].clone(), ("k1".to_owned(), other)];
    let refused = [attempt("k1", Outcome::Refused, None)];
    let elsewhere = [attempt("k1", Outcome::Ok, Some(other))];
    assert_each_found(vec![
        (
            "an order that was acknowledged and is gone",
            journal::check_durable(&fine(), &orders),
            journal::check_durable(&fine(), &HashSet::new()),
        ),
        (
            "an acknowledgement without an order",
            journal::check_durable(&fine(), &orders),
            journal::check_durable(&[attempt("k1", Outcome::Ok, None)], &orders),
        ),
        ("two orders under one key", sound(), once(&fine(), &twice, &[order, other])),
        ("another response under the same key", sound(), once(&elsewhere, &made, &[order])),
        ("an order that was refused and is there", sound(), once(&refused, &made, &[order])),
        ("an order without an attempt", sound(), once(&fine(), &made, &[order, other])),
    ]);
}

#[test]
fn journals_are_read_line_by_line_and_a_torn_end_is_ignored() {
    let path = std::env::temp_dir().join(format!("souk-journal-{}", Uuid::now_v7()));
    let order_id = Uuid::now_v7();
    let whole = format!(
        "{{\"attempt\":1,\"key\":\"k1\",\"operation\":\"create\",\"outcome\":\"unknown\",\"at\":\"2026-01-01T00:00:00Z\"}}\n\
         {{\"attempt\":\"2\",\"key\":\"k1\",\"operation\":\"create\",\"outcome\":\"ok\",\"order_id\":\"{order_id}\",\"at\":1}}\n"
    );
    std::fs::write(&path, format!("{whole}{{\"attempt\":3,\"ke")).expect("written");
    let attempts = journal::read(&path).expect("read");
    let read: Vec<_> = attempts.iter().map(|it| (it.outcome, it.order_id)).collect();
    assert_eq!(read, [(Outcome::Unknown, None), (Outcome::Ok, Some(order_id))]);
    std::fs::write(&path, format!("{whole}no attempt\n")).expect("written");
    let refused = journal::read(&path).expect_err("not JSON").to_string();
    assert!(refused.contains("line 3"), "{refused}");
    std::fs::remove_file(&path).expect("it is there");
}
