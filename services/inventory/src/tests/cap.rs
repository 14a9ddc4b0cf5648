//! How much one customer may hold.

use chassis::event::Record;
use contracts::souk::inventory::v1::inventory_event::Event as Kind;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::OrderEvent;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use prost::Message;
use sqlx::PgPool;
use testkit::{deliver, unreachable};
use uuid::Uuid;

use super::Fixture;
use super::reservation::{cancelled, confirmed, placed};

fn placed_by(user_id: &str, order: Uuid, lines: &[(&str, i32)]) -> Record {
    let record = placed(order, lines);
    let event = OrderEvent::decode(&*record.payload).expect("an event of an order");
    Record { payload: OrderEvent { user_id: user_id.to_owned(), ..event }.encode_to_vec(), ..record }
}

/// A customer may hold 5 units of a SKU.
async fn open_capped(db: PgPool) -> Fixture {
    Fixture::open_with(db, OrderServiceClient::new(unreachable(roster::INVENTORY, roster::ORDER)), Some(5)).await
}

impl Fixture {
    /// The shortages in the last event of an order; none if its lines are held.
    async fn shortages(&self, order: Uuid) -> Vec<StockShortage> {
        let records = testkit::published(&self.service.db).await;
        let last = records.into_iter().rfind(|record| record.key == order).expect("an event");
        match InventoryEvent::decode(&*last.payload).expect("an event of ours").event {
            Some(Kind::StockRejected(rejected)) => rejected.shortages,
            _ => vec![],
        }
    }
}

fn capped(requested: i32, available: i64) -> StockShortage {
    StockShortage { sku: "MUG".into(), requested, available, reason: "HOLD_CAP".into() }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_customer_holds_so_many_of_a_sku_until_they_are_sold_or_released(db: PgPool) {
    let fixture = open_capped(db).await;
    fixture.receive("k1", "MUG", 100).await.expect("received");
    fixture.receive("k2", "CUP", 100).await.expect("received");
    let (ada, bob) = (&*Uuid::now_v7().to_string(), &*Uuid::now_v7().to_string());
    let [first, second, third, fourth, fifth, of_bob] = [(); 6].map(|()| Uuid::now_v7());
    fixture.kit.deliver(placed_by(ada, first, &[("MUG", 3), ("CUP", 5)])).await;
    fixture.kit.deliver(placed_by(ada, second, &[("MUG", 3)])).await;
    assert_eq!(fixture.shortages(second).await, [capped(3, 2)]);
    fixture.kit.deliver(placed_by(bob, of_bob, &[("MUG", 5)])).await;
    assert_eq!(fixture.shortages(of_bob).await, []);

    fixture.kit.deliver(placed_by(ada, third, &[("MUG", 2)])).await;
    fixture.kit.deliver(cancelled(third)).await;
    fixture.kit.deliver(confirmed(first)).await;
    fixture.kit.deliver(placed_by(ada, fourth, &[("MUG", 5)])).await;
    assert_eq!(fixture.shortages(fourth).await, [], "what is sold or released is not held");
    fixture.kit.deliver(placed_by(ada, fifth, &[("MUG", 1)])).await;
    assert_eq!(fixture.shortages(fifth).await, [capped(1, 0)]);
    assert_eq!(fixture.level("MUG").await, (87, 10, 3));
}

/// All at once, in one group and from many partitions: the sum is what counts.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn many_orders_at_once_hold_no_more_than_one(db: PgPool) {
    let fixture = open_capped(db).await;
    fixture.receive("k1", "MUG", 1_000).await.expect("received");
    let ada = Uuid::now_v7().to_string();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (consumer, clock) = (fixture.kit.consumer().clone(), fixture.kit.context.clock.clone());
        let group: Vec<_> = (0..8).map(|_| placed_by(&ada, Uuid::now_v7(), &[("MUG", 2)])).collect();
        crowd.spawn(async move { deliver(&consumer, &clock, &group).await });
    }
    crowd.join_all().await;
    assert_eq!((fixture.level("MUG").await, fixture.kit.parked().await), ((996, 4, 0), 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_a_cap_a_customer_holds_what_there_is(db: PgPool) {
    let fixture = Fixture::open(db).await;
    fixture.receive("k1", "MUG", 1_000).await.expect("received");
    fixture.kit.deliver(placed(Uuid::now_v7(), &[("MUG", 1_000)])).await;
    assert_eq!(fixture.level("MUG").await, (0, 1_000, 0));
}

/// Events of the first releases do not name the customer.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_of_an_unknown_customer_is_held_without_a_cap(db: PgPool) {
    let fixture = open_capped(db).await;
    fixture.receive("k1", "MUG", 100).await.expect("received");
    fixture.kit.deliver(placed_by("", Uuid::now_v7(), &[("MUG", 6)])).await;
    assert_eq!((fixture.level("MUG").await, fixture.kit.parked().await), ((94, 6, 0), 0));
}
