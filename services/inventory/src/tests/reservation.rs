use chassis::check::Range;
use chassis::event::Record;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{deadlocks, deliver, order_event, reason};
use uuid::Uuid;

use super::Fixture;

pub(super) fn placed(order: Uuid, lines: &[(&str, i32)]) -> Record {
    let line =
        |(sku, quantity): &(&str, i32)| OrderLine { sku: (*sku).into(), quantity: *quantity, ..Default::default() };
    let lines = lines.iter().map(line).collect();
    order_event(order, 1, Event::OrderPlaced(OrderPlaced { lines, ..Default::default() }))
}

pub(super) fn confirmed(order: Uuid) -> Record {
    order_event(order, 3, Event::OrderConfirmed(OrderConfirmed::default()))
}

pub(super) fn cancelled(order: Uuid) -> Record {
    order_event(order, 4, Event::OrderCancelled(OrderCancelled::default()))
}

/// Every way in which an order that holds stock can end.
fn ends(order: Uuid) -> [Record; 3] {
    [
        cancelled(order),
        order_event(order, 4, Event::OrderExpired(OrderExpired::default())),
        order_event(order, 4, Event::OrderPaymentFailed(OrderPaymentFailed::default())),
    ]
}

impl Fixture {
    /// available, reserved, sold.
    pub(super) async fn level(&self, sku: &str) -> (i64, i64, i64) {
        let row = sqlx::query!("select available, reserved, sold from stock where sku = $1", sku);
        let row = row.fetch_one(&self.service.db).await.expect("a stock row");
        (row.available, row.reserved, row.sold)
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_holds_sells_and_gives_back_however_it_ends(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    for which in 0..3 {
        let (order, other) = (Uuid::now_v7(), Uuid::now_v7());
        let end = ends(order)[which].clone();
        for (record, level) in
            [(placed(order, &[("MUG", 4)]), (6, 4, 0)), (confirmed(order), (6, 0, 4)), (end, (10, 0, 0))]
        {
            fixture.kit.deliver(record.clone()).await;
            assert_eq!(fixture.level("MUG").await, level, "{}", record.event_type);
            fixture.kit.deliver(record).await;
            assert_eq!(fixture.level("MUG").await, level, "twice is once");
        }
        assert_eq!(fixture.kit.published(order).await, ["StockReserved", "StockSold", "StockReturned"]);

        fixture.kit.deliver(placed(other, &[("MUG", 4)])).await;
        fixture.kit.deliver(ends(other)[which].clone()).await;
        assert_eq!(fixture.level("MUG").await, (10, 0, 0));
        assert_eq!(fixture.kit.published(other).await, ["StockReserved", "StockReleased"]);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn all_lines_are_held_or_none(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    fixture.receive("k2", "CUP", 1).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(placed(order, &[("MUG", 1), ("CUP", 2), ("GONE", 1)])).await;
    assert_eq!((fixture.level("MUG").await, fixture.level("CUP").await), ((10, 0, 0), (1, 0, 0)));
    assert_eq!(fixture.kit.published(order).await, ["StockRejected"]);
    fixture.kit.deliver(cancelled(order)).await;
    assert_eq!(fixture.kit.published(order).await, ["StockRejected"], "nothing was held, nothing goes back");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_end_that_comes_first_bars_the_hold(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(cancelled(order)).await;
    let mut late = placed(order, &[("MUG", 4)]);
    late.version = 5;
    fixture.kit.deliver(late).await;
    assert_eq!(fixture.level("MUG").await, (10, 0, 0));
    assert_eq!(fixture.kit.published(order).await, Vec::<String>::new());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_confirmation_without_a_hold_parks_its_order_only(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let (odd, fine) = (Uuid::now_v7(), Uuid::now_v7());
    fixture.kit.deliver(confirmed(odd)).await;
    fixture.kit.deliver(placed(fine, &[("MUG", 1)])).await;
    assert_eq!((fixture.kit.parked().await, fixture.level("MUG").await), (1, (9, 1, 0)));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn of_many_orders_for_the_last_unit_one_gets_it(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 1).await.expect("received");
    let orders: Vec<_> = (0..16).map(|_| Uuid::now_v7()).collect();
    let mut crowd = tokio::task::JoinSet::new();
    for order in orders.clone() {
        let (consumer, clock) = (fixture.kit.consumer().clone(), fixture.kit.context.clock.clone());
        crowd.spawn(async move { deliver(&consumer, &clock, &[placed(order, &[("MUG", 1)])]).await });
    }
    crowd.join_all().await;
    assert_eq!(fixture.level("MUG").await, (0, 1, 0));
    let mut held = 0;
    for order in orders {
        held += usize::from(fixture.kit.published(order).await == ["StockReserved"]);
    }
    assert_eq!(held, 1);
}

/// What shares a transaction is one piece of work, and has the effects and events that it would have one by one.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_group_is_decided_in_its_order(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 5).await.expect("received");
    let [first, second, third, barred] = [(); 4].map(|()| Uuid::now_v7());
    let group = [
        placed(first, &[("MUG", 4)]),
        placed(second, &[("MUG", 2)]),
        cancelled(barred),
        cancelled(first),
        placed(third, &[("MUG", 5)]),
        confirmed(third),
        cancelled(second),
    ];
    fixture.kit.deliver_together(&group).await;
    assert_eq!((fixture.level("MUG").await, fixture.kit.parked().await), ((0, 0, 5), 0));
    assert_eq!(fixture.kit.published(first).await, ["StockReserved", "StockReleased"]);
    assert_eq!(fixture.kit.published(second).await, ["StockRejected"], "it was short when its turn came");
    assert_eq!(fixture.kit.published(third).await, ["StockReserved", "StockSold"]);
    assert_eq!(fixture.kit.published(barred).await, Vec::<String>::new());
    let checked = crate::check::check_reservations(&fixture.service.db, Range::ALL).await.expect("checked");
    assert_eq!((checked.checked, checked.violations.len()), (4, 0), "{:?}", checked.violations);
}

/// Groups of different partitions, whose orders come to the same goods in opposite directions. `deadlocks` counts what
/// Postgres had to end.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn groups_that_cross_do_not_deadlock(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let goods: Vec<_> = (0..16).map(|n| format!("GOODS-{n:02}")).collect();
    for sku in &goods {
        fixture.receive(sku, sku, 1_000).await.expect("received");
    }
    let mut crowd = tokio::task::JoinSet::new();
    for partition in 0..4_usize {
        let (consumer, clock, goods) =
            (fixture.kit.consumer().clone(), fixture.kit.context.clock.clone(), goods.clone());
        crowd.spawn(async move {
            for _ in 0..8 {
                let orders: Vec<_> = (0..16).map(|_| Uuid::now_v7()).collect();
                let along = |n: usize| &*goods[if partition % 2 == 0 { n } else { 15 - n }];
                let group: Vec<_> = (0..16).map(|n| placed(orders[n], &[(along(n), 1)])).collect();
                deliver(&consumer, &clock, &group).await;
                let group: Vec<_> = (0..16).map(|n| cancelled(orders[15 - n])).collect();
                deliver(&consumer, &clock, &group).await;
            }
        });
    }
    crowd.join_all().await;
    for sku in &goods {
        assert_eq!(fixture.level(sku).await, (1_000, 0, 0), "{sku}");
    }
    assert_eq!(deadlocks(&fixture.service.db).await, 0);
}

/// Orders over the same two goods; some are confirmed, some end, before or after that. Their events are interleaved at
/// random and each is delivered twice, alone or in a group. At every moment what is held and sold is what the reservations say,
/// and nothing is oversold.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn units_are_conserved_whatever_the_order_of_events(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 25).await.expect("received");
    fixture.receive("k2", "CUP", 25).await.expect("received");
    let mut seed = 0x5eed_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut stories: Vec<_> = (0..40)
        .map(|n| {
            let order = Uuid::from_u128(n + 1);
            let lines = [("MUG", 1 + random(3) as i32), ("CUP", 1 + random(2) as i32)];
            let mut story = vec![placed(order, &lines), confirmed(order), cancelled(order)];
            if random(2) == 0 {
                story.remove(1);
            }
            (order, story)
        })
        .collect();
    let mut returned = 0;
    while !stories.is_empty() {
        let mut group = vec![];
        for _ in 0..=random(3) {
            let at = random(stories.len());
            let (order, story) = &mut stories[at];
            // The order service confirms only what was held.
            let bad = ["StockRejected"] == *fixture.kit.published(*order).await;
            story.retain(|record| !(bad && record.event_type.ends_with("Confirmed")));
            if !group.iter().any(|record: &Record| record.key == *order) && !story.is_empty() {
                group.push(story.remove(0));
            }
            // One in three stays as it is, so that in the end some are held, some sold.
            if story.is_empty() || (story.len() == 1 && random(3) == 0) {
                stories.swap_remove(at);
            }
            if stories.is_empty() {
                break;
            }
        }
        fixture.kit.deliver_together(&group).await;
        fixture.kit.deliver_together(&group).await;
        returned += fixture.check_sums().await;
    }
    assert!(returned > 0, "the walk came to sales that went back");
    assert_eq!(fixture.kit.parked().await, 0);
}

impl Fixture {
    /// Holds the counters against the reservations. How many were returned.
    async fn check_sums(&self) -> i64 {
        let sums = sqlx::query!(
            r#"select stock.sku, available, reserved, sold,
                 coalesce(sum(quantity) filter (where state = 'HELD'), 0) as "held!",
                 coalesce(sum(quantity) filter (where state = 'SOLD'), 0) as "gone!",
                 count(*) filter (where state = 'RETURNED') as "returned!"
               from stock left join reservation_line using (sku) left join reservation using (order_id)
               group by stock.sku"#,
        );
        let sums = sums.fetch_all(&self.service.db).await.expect("sums");
        for row in &sums {
            let counters = (row.available, row.reserved, row.sold);
            assert_eq!(counters, (25 - row.held - row.gone, row.held, row.gone), "{}", row.sku);
            assert!(row.available >= 0, "{}", row.sku);
        }
        sums.iter().map(|row| row.returned).sum()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn operators_see_reservations(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 10).await.expect("received");
    let order = Uuid::now_v7();
    fixture.kit.deliver(placed(order, &[("MUG", 4)])).await;
    let ask = |order: Uuid| fixture.kit.operator(GetReservationRequest { order_id: order.to_string() });
    let found = fixture.client.clone().get_reservation(ask(order)).await.expect("there").into_inner().reservation;
    let found = found.expect("a reservation");
    assert_eq!(found.state(), ReservationState::Held);
    assert_eq!(found.lines, [ReservationLine { sku: "MUG".into(), quantity: 4, returned_quantity: 0 }]);
    let none = fixture.client.clone().get_reservation(ask(Uuid::now_v7())).await.expect_err("none");
    assert_eq!(reason(&none), "RESERVATION_NOT_FOUND@souk.inventory");
}
