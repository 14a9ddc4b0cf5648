//! How much one customer may hold.

use chassis::event::Record;
use contracts::souk::inventory::v1::inventory_event::Event as Kind;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::OrderEvent;
use prost::Message;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Store, cancelled, confirmed, placed};

fn placed_by(user: Uuid, order: Uuid, lines: &[(&str, i32)]) -> Record {
    let record = placed(order, lines);
    let event = OrderEvent::decode(&*record.payload).expect("an event of an order");
    Record { payload: OrderEvent { user_id: user.to_string(), ..event }.encode_to_vec(), ..record }
}

impl Store {
    /// What was said last about an order: nothing if its lines are held, or what was short.
    async fn shortages(&self, order: Uuid) -> Vec<StockShortage> {
        let records = testkit::published(&self.db).await;
        let last = records.into_iter().rfind(|record| record.key == order).expect("something was said");
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
async fn a_customer_holds_so_many_of_a_sku_until_they_are_sold_or_let_go(db: PgPool) {
    let store = Store::open_capped(db, 5).await;
    store.receive("k1", "MUG", 100).await.expect("received");
    store.receive("k2", "CUP", 100).await.expect("received");
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let [first, second, third, fourth, fifth, of_bob] = [(); 6].map(|()| Uuid::now_v7());
    store.hear(placed_by(ada, first, &[("MUG", 3), ("CUP", 5)])).await;
    store.hear(placed_by(ada, second, &[("MUG", 3)])).await;
    assert_eq!(store.shortages(second).await, [capped(3, 2)]);
    store.hear(placed_by(bob, of_bob, &[("MUG", 5)])).await;
    assert_eq!(store.shortages(of_bob).await, []);

    store.hear(placed_by(ada, third, &[("MUG", 2)])).await;
    store.hear(cancelled(third)).await;
    store.hear(confirmed(first)).await;
    store.hear(placed_by(ada, fourth, &[("MUG", 5)])).await;
    assert_eq!(store.shortages(fourth).await, [], "what is sold or let go is not held");
    store.hear(placed_by(ada, fifth, &[("MUG", 1)])).await;
    assert_eq!(store.shortages(fifth).await, [capped(1, 0)]);
    assert_eq!(store.level("MUG").await, (87, 10, 3));
}

/// All at once, in one group and from many partitions: the sum is what counts.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn many_orders_at_once_hold_no_more_than_one(db: PgPool) {
    let store = Store::open_capped(db, 5).await;
    store.receive("k1", "MUG", 1_000).await.expect("received");
    let ada = Uuid::now_v7();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (consumer, clock) = (store.consumer.clone(), store.kit.context.clock.clone());
        let group: Vec<_> = (0..8).map(|_| placed_by(ada, Uuid::now_v7(), &[("MUG", 2)])).collect();
        crowd.spawn(async move { testkit::hear(&consumer, &clock, &group).await });
    }
    crowd.join_all().await;
    assert_eq!((store.level("MUG").await, store.parked().await), ((996, 4, 0), 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn without_a_cap_a_customer_holds_what_there_is(db: PgPool) {
    let store = Store::open(db).await;
    store.receive("k1", "MUG", 1_000).await.expect("received");
    store.hear(placed_by(Uuid::now_v7(), Uuid::now_v7(), &[("MUG", 1_000)])).await;
    assert_eq!(store.level("MUG").await, (0, 1_000, 0));
}
