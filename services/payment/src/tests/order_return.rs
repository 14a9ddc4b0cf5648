//! Items of orders come back, and their price goes back to the customer.

use std::time::Duration;

use chassis::check::Range;
use chassis::event::Record;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderCancelled, OrderConfirmed, OrderItemsReturned};
use contracts::souk::payment::v1::{GetPaymentRequest, RefundReason};
use contracts::souk::r#type::v1::Money;
use sqlx::PgPool;
use testkit::{CUSTOMER, Dice, Log, order_event, try_event_at, until_waiting};
use uuid::Uuid;

use super::Fixture;
use crate::check;
use crate::claim::claim;
use crate::drive::drive;

const ACTOR: &str = "operator:01920000-0000-7000-8000-000000000001";

pub(super) fn returned(order: Uuid, number: i32, refund: Money) -> Record {
    let refund = Some(refund);
    let event = Event::OrderItemsReturned(OrderItemsReturned { return_number: number, refund, ..Default::default() });
    Record { actor: ACTOR.to_owned(), ..order_event(order, 10 + i64::from(number), event) }
}

pub(super) fn euros(minor: i64) -> Money {
    Money::new("EUR", minor)
}

impl Fixture {
    /// What was asked for each return, and what was reserved.
    async fn returns(&self, order_id: Uuid) -> Vec<(i64, i64)> {
        let rows = sqlx::query!(
            "select asked_minor, minor from order_return join payment using (payment_id) where order_id = $1 order by number",
            order_id,
        );
        rows.fetch_all(&self.service.db)
            .await
            .expect("rows")
            .into_iter()
            .map(|row| (row.asked_minor, row.minor))
            .collect()
    }

    async fn assert_sound(&self, what: &str) {
        for finding in [
            check::check_ledger(&self.service.db, Range::ALL).await.expect("checked"),
            check::check_returns(&self.service.db, Range::ALL).await.expect("checked"),
            check::check_payments(&self.service.db, Range::ALL).await.expect("checked"),
        ] {
            assert_eq!(finding.violations, [].into(), "{what}");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_price_of_what_comes_back_is_refunded_once(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.captured("pm_card_visa").await;
    fixture.kit.deliver(returned(order, 1, euros(700))).await;
    assert_eq!(fixture.refunds(order).await, [(700, "PENDING".to_owned())], "the provider is asked afterwards");
    fixture.work().await;
    assert_eq!(fixture.ours(order).await[2..], [("REFUND".to_owned(), 700)]);
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    let records = testkit::published(&fixture.service.db).await;
    assert_eq!(records.last().expect("events").actor, ACTOR, "who took it back is who refunded it");
    let request = GetPaymentRequest { payment_id: fixture.payment_id(order).await.to_string() };
    let shown = fixture.client.clone().get_payment(fixture.kit.operator(request)).await.expect("it").into_inner();
    assert_eq!(shown.refunds[0].reason(), RefundReason::OrderReturn);
    let back: Vec<_> =
        shown.returns.into_iter().map(|it| (it.return_number, it.price, it.refund_minor, it.refund_id)).collect();
    assert_eq!(back, [(1, Some(euros(700)), 700, shown.refunds[0].refund_id.clone())]);
    let request = fixture.kit.customer(CUSTOMER, GetPaymentRequest { payment_id: shown.refunds[0].payment_id.clone() });
    let shown = fixture.client.clone().get_payment(request).await.expect("theirs").into_inner();
    assert_eq!((shown.refunds.len(), shown.returns), (1, vec![]), "for operators");
    fixture.assert_sound("at rest").await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_other_refunds_have_left_is_refunded_and_never_more(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, log) = (fixture.captured("pm_card_visa").await, Log::keep());
    fixture.refund(order, "k1", Some(2_000)).await.expect("an operator refunds most of it");
    for (number, minor) in [(1, 300), (2, 400), (3, 100)] {
        fixture.kit.deliver(returned(order, number, euros(minor))).await;
    }
    assert_eq!(fixture.returns(order).await, [(300, 300), (400, 200), (100, 0)]);
    assert_eq!(log.find("other refunds had left less than the price of returned items").len(), 2);
    fixture.work().await;
    assert_eq!(fixture.refunds(order).await, [2_000, 300, 200].map(|minor| (minor, "DONE".to_owned())));
    assert_eq!(fixture.ours(order).await, fixture.theirs(order).await);
    fixture.refund(order, "k2", Some(1)).await.expect_err("nothing is left");
    fixture.assert_sound("at rest").await;
}

/// Another task sets goals, too, and locks in the order of order ids: a set must not lock the payment of its goal before the older
/// one of its return.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn payments_of_goals_and_returns_are_locked_in_one_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (paid, authorized) = (fixture.captured("pm_card_visa").await, fixture.reserved("pm_card_visa").await);
    fixture.work().await;
    assert!(paid < authorized);
    let lock = |order: Uuid| sqlx::query("select from payment where order_id = $1 for update nowait").bind(order);
    let mut other = fixture.service.db.begin().await.expect("a transaction");
    lock(paid).execute(&mut *other).await.expect("the first");
    let confirmed = order_event(authorized, 3, Event::OrderConfirmed(OrderConfirmed::default()));
    let set = [confirmed, returned(paid, 1, euros(700))];
    let go_on = async {
        until_waiting(&fixture.service.db, 1).await;
        lock(authorized).execute(&mut *other).await.expect("nobody has locked the second while waiting for the first");
        other.commit().await.expect("committed");
    };
    tokio::join!(fixture.kit.deliver_together(&set), go_on);
    fixture.work().await;
    assert_eq!(fixture.state(authorized).await, "CAPTURED");
    assert_eq!(fixture.refunds(paid).await, [(700, "DONE".to_owned())]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_a_capture_in_its_currency_a_return_is_a_dead_letter(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (authorized, captured) = (fixture.reserved("pm_card_visa").await, fixture.captured("pm_card_visa").await);
    fixture.work().await;
    for record in [
        returned(authorized, 1, euros(100)),
        returned(Uuid::now_v7(), 2, euros(100)),
        returned(captured, 3, Money::new("USD", 100)),
        returned(captured, 4, euros(0)),
    ] {
        fixture.kit.deliver_together(&[record]).await;
    }
    assert_eq!(fixture.kit.parked().await, 4);
    assert_eq!(fixture.refunds(captured).await, []);
}

/// Any sequence of returns, refunds by operators and an end of the order, while workers do their work or are killed during a call:
/// each event cut off before its commit first, and delivered twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn money_adds_up_whatever_comes_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (mut short, mut ended) = (0, 0);
    for (seed, method) in (0..).zip(["pm_card_visa", "pm_souk_refund_fails", "pm_card_visa", "pm_card_visa"]) {
        let (order, mut dice) = (fixture.captured(method).await, Dice::new(seed));
        let (mut number, mut asked, mut is_over) = (0, 0, false);
        for step in 0..14 {
            let minor = i64::try_from(dice.below(600)).expect("it is small") + 1;
            match dice.below(12) {
                0..5 => {
                    number += 1;
                    asked += minor;
                    try_event_at(&fixture.kit, &returned(order, number, euros(minor)), "order_return").await;
                }
                5..8 => drop(fixture.refund(order, &format!("{seed}-{step}"), Some(minor)).await),
                8 => drop(drive(fixture.service.clone()).await.expect("the database is there")),
                // A worker is killed before its call, and its lease expires.
                9 => drop(claim(&fixture.service).await.expect("the database is there")),
                10 => fixture.kit.context.clock.advance(Duration::from_secs(31)),
                _ => {
                    let end = Event::OrderCancelled(OrderCancelled::default());
                    fixture.kit.deliver(order_event(order, 11 + i64::from(number), end)).await;
                    number += 1;
                    is_over = true;
                }
            }
            fixture.assert_sound(&format!("seed {seed}, step {step}")).await;
        }
        fixture.work().await;
        fixture.assert_sound(&format!("seed {seed}, at rest")).await;
        assert_eq!(fixture.ours(order).await, fixture.theirs(order).await, "seed {seed}");
        let returns = fixture.returns(order).await;
        assert_eq!(returns.iter().map(|it| it.0).sum::<i64>(), asked, "seed {seed}: each return once");
        short += usize::from(returns.iter().any(|it| it.1 < it.0));
        let back = fixture.ours(order).await.iter().filter(|it| it.0 == "REFUND").map(|it| it.1).sum::<i64>();
        assert!(back <= 2_500, "seed {seed}: {back}");
        if is_over {
            assert_eq!(back, 2_500, "seed {seed}: an order that ended keeps nothing");
            ended += 1;
        }
    }
    assert!(short > 0 && ended > 0, "{short} {ended}");
    assert_eq!(fixture.kit.parked().await, 0);
}
