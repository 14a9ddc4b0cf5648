//! Units that customers send back.

use chassis::check::Range;
use chassis::event::{Due, Handler, Record};
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{Dice, order_event, try_event, try_event_at, until_waiting};
use tracing::Span;
use uuid::Uuid;

use super::Fixture;
use super::reservation::{cancelled, confirmed, placed};
use crate::check;
use ReturnDisposition::{Restock, WriteOff};

/// Who takes units back.
const ACTOR: &str = "operator:01920000-0000-7000-8000-000000000001";

pub(super) fn returned(order: Uuid, version: i64, items: &[(&str, i32, ReturnDisposition)]) -> Record {
    let item = |(sku, quantity, disposition): &(&str, i32, ReturnDisposition)| ReturnedItem {
        sku: (*sku).into(),
        quantity: *quantity,
        disposition: (*disposition).into(),
        ..Default::default()
    };
    let items = items.iter().map(item).collect();
    let event = Event::OrderItemsReturned(OrderItemsReturned { items, ..Default::default() });
    Record { actor: ACTOR.to_owned(), ..order_event(order, version, event) }
}

impl Fixture {
    pub(super) async fn assert_sound(&self, what: &str) {
        let stock = check::check_stock(&self.service.db).await.expect("checked");
        assert_eq!(stock.violations, [].into(), "{what}");
        let reservations = check::check_reservations(&self.service.db, Range::ALL).await.expect("checked");
        assert_eq!(reservations.violations, [].into(), "{what}");
    }

    async fn written_off(&self, sku: &str) -> i64 {
        let row = sqlx::query_scalar!("select written_off from stock where sku = $1", sku);
        row.fetch_one(&self.service.db).await.expect("a stock row")
    }

    /// What is returned of each line of an order.
    async fn returned_lines(&self, order: Uuid) -> Vec<(String, i32, i32)> {
        let request = self.kit.operator(GetReservationRequest { order_id: order.to_string() });
        let reservation = self.client.clone().get_reservation(request).await.expect("it is there").into_inner();
        let lines = reservation.reservation.expect("a reservation").lines.into_iter();
        lines.map(|line| (line.sku, line.quantity, line.returned_quantity)).collect()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn restocked_units_can_be_sold_again_and_others_are_written_off(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    for record in [placed(order, &[("MUG", 4)]), confirmed(order)] {
        fixture.kit.deliver(record).await;
    }
    fixture.kit.deliver(returned(order, 6, &[("MUG", 2, Restock), ("MUG", 1, WriteOff)])).await;
    assert_eq!((fixture.level("MUG").await, fixture.written_off("MUG").await), ((8, 0, 1), 1));
    assert_eq!(fixture.returned_lines(order).await, [("MUG".to_owned(), 4, 3)]);
    fixture.assert_sound("after the first").await;

    fixture.kit.deliver(returned(order, 7, &[("MUG", 2, Restock)])).await;
    assert_eq!(fixture.kit.parked().await, 1, "more than is left");
    assert_eq!(fixture.level("MUG").await, (8, 0, 1));
}

/// All events of an order may wait together, after a pause of the consumer.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_whole_order_and_its_return_may_share_a_transaction(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let (order, other) = (Uuid::now_v7(), Uuid::now_v7());
    let records = [
        placed(order, &[("MUG", 4)]),
        placed(other, &[("MUG", 5)]),
        confirmed(order),
        returned(order, 6, &[("MUG", 1, Restock)]),
        returned(order, 7, &[("MUG", 1, WriteOff)]),
    ];
    fixture.kit.deliver_together(&records).await;
    assert_eq!(fixture.level("MUG").await, (2, 5, 2));
    assert_eq!(fixture.returned_lines(order).await, [("MUG".to_owned(), 4, 2)]);
    fixture.assert_sound("together").await;
}

/// A transaction that waits for the lock of a reservation must see, once it has it, which units came back meanwhile: otherwise they
/// come back twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_transaction_that_waits_for_a_reservation_sees_what_came_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    for record in [placed(order, &[("MUG", 4)]), confirmed(order)] {
        fixture.kit.deliver(record).await;
    }
    let mut first = fixture.service.db.begin().await.expect("a transaction");
    let record = returned(order, 6, &[("MUG", 1, Restock)]);
    let due = Due { record: &record, span: Span::none() };
    fixture.service.handle_all(&mut first, &[due]).await.expect("taken back, and not committed");
    let commit = async {
        until_waiting(&fixture.service.db, 1).await;
        first.commit().await.expect("committed");
    };
    tokio::join!(fixture.kit.deliver(Record { version: 7, ..cancelled(order) }), commit);
    assert_eq!((fixture.kit.parked().await, fixture.level("MUG").await), (0, (10, 0, 0)));
    fixture.assert_sound("at rest").await;
}

/// The state of the order was read from the order service when it was ahead of its events.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_return_is_not_lost_where_the_order_was_known_to_be_further(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    for record in [placed(order, &[("MUG", 4)]), confirmed(order)] {
        fixture.kit.deliver(record).await;
    }
    sqlx::query!("update reservation set order_version = 9 where order_id = $1", order)
        .execute(&fixture.service.db)
        .await
        .expect("ahead");
    fixture.kit.deliver(returned(order, 6, &[("MUG", 1, Restock)])).await;
    assert_eq!(fixture.level("MUG").await, (7, 0, 3));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn what_was_not_sold_does_not_come_back(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let (held, unknown) = (Uuid::now_v7(), Uuid::now_v7());
    fixture.kit.deliver(placed(held, &[("MUG", 4)])).await;
    for (order, version) in [(held, 6), (unknown, 7)] {
        fixture.kit.deliver_together(&[returned(order, version, &[("MUG", 1, Restock)])]).await;
    }
    assert_eq!((fixture.kit.parked().await, fixture.level("MUG").await), (2, (6, 4, 0)));
}

/// One order, and how many units of each of two SKUs it has left.
struct Model {
    order: Uuid,
    version: i64,
    left: [i32; 2],
    is_sold: bool,
    is_over: bool,
}

/// Any sequence of orders, returns and ends, each event cut off before its commit first, and delivered twice.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn units_add_up_whatever_comes_back(db: PgPool) {
    const SKUS: [&str; 2] = ["CUP", "MUG"];
    let fixture = Fixture::open(db).await;
    for sku in SKUS {
        fixture.receive(sku, sku, 60).await.expect("received");
    }
    let mut dice = Dice::new(7);
    let (mut orders, mut lost) = (Vec::<Model>::new(), [0_i64; 2]);
    for step in 0..90 {
        let of =
            |dice: &mut Dice, most: i32| i32::try_from(dice.below(u64::from(most.unsigned_abs()) + 1)).expect("small");
        if orders.len() < 2 || dice.below(5) == 0 {
            let (order, left) = (Uuid::now_v7(), [1 + of(&mut dice, 2), 1 + of(&mut dice, 2)]);
            try_event(&fixture.kit, &placed(order, &[(SKUS[0], left[0]), (SKUS[1], left[1])])).await;
            orders.push(Model { order, version: 5, left, is_sold: false, is_over: false });
        } else {
            let at = usize::try_from(dice.below(orders.len() as u64)).expect("small");
            let model = &mut orders[at];
            model.version += 1;
            match dice.below(6) {
                _ if model.is_over => {}
                0 => {
                    let end = Record { version: model.version, ..cancelled(model.order) };
                    try_event(&fixture.kit, &end).await;
                    (model.left, model.is_over) = ([0, 0], true);
                }
                _ if !model.is_sold => {
                    try_event(&fixture.kit, &confirmed(model.order)).await;
                    model.is_sold = true;
                }
                _ => {
                    let (which, disposition) =
                        (usize::from(dice.below(2) == 0), [Restock, WriteOff][usize::from(dice.below(2) == 0)]);
                    let units = of(&mut dice, model.left[which]);
                    if units > 0 {
                        let record = returned(model.order, model.version, &[(SKUS[which], units, disposition)]);
                        try_event_at(&fixture.kit, &record, "stock_movement").await;
                        model.left[which] -= units;
                        lost[which] += if disposition == WriteOff { i64::from(units) } else { 0 };
                    }
                }
            }
        }
        for (at, sku) in SKUS.into_iter().enumerate() {
            let sum = |is_sold| {
                orders.iter().filter(|it| it.is_sold == is_sold).map(|it| i64::from(it.left[at])).sum::<i64>()
            };
            let expected = (60 - sum(true) - sum(false) - lost[at], sum(false), sum(true));
            assert_eq!((fixture.level(sku).await, fixture.written_off(sku).await), (expected, lost[at]), "step {step}");
        }
        fixture.assert_sound(&format!("step {step}")).await;
    }
    assert_eq!(fixture.kit.parked().await, 0);
    assert!(lost.iter().all(|lost| *lost > 0), "{lost:?}");
}
