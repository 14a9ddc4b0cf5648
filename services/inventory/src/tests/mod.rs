mod cap;
mod keys;
mod reservation;
mod stale;
mod stock;

use std::sync::Arc;
use std::time::Duration;

use chassis::event::outbox::Wake;
use chassis::event::{Consumer, Record};
use chassis::rpc::client;
use contracts::souk::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::souk::inventory::v1::*;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::*;
use prost::Message;
use sqlx::{Connection, PgConnection, PgPool};
use testkit::Kit;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{Service, consumer, role};

/// The service, a client of it, and the consumer that the bus would feed.
pub(super) struct Store {
    pub(super) kit: Kit,
    pub(super) db: PgPool,
    pub(super) service: Arc<Service>,
    pub(super) consumer: Consumer,
    pub(super) client: InventoryServiceClient<Channel>,
}

impl Store {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, nobody(), None).await
    }

    /// With so many units of a SKU that a customer may hold.
    pub(super) async fn open_capped(db: PgPool, max_units: i64) -> Self {
        Self::open_with(db, nobody(), Some(max_units)).await
    }

    pub(super) async fn open_with(
        db: PgPool,
        orders: OrderServiceClient<client::Peer>,
        max_units: Option<i64>,
    ) -> Self {
        let kit = Kit::new();
        let service = Arc::new(Service {
            db: db.clone(),
            clock: kit.context.clock.clone(),
            orders,
            hold_limit: Duration::from_secs(1_500),
            max_units,
            published: Wake::default(),
        });
        let channel = kit.serve(role(service.clone(), ([127, 0, 0, 1], 0).into(), &kit.context)).await;
        let consumer = consumer(service.clone());
        Self { kit, db, service, consumer, client: InventoryServiceClient::new(channel) }
    }

    pub(super) async fn receive(&self, key: &str, sku: &str, quantity: i32) -> Result<StockLevel, Status> {
        let request = ReceiveStockRequest { request_id: key.into(), sku: sku.into(), quantity };
        let response = self.client.clone().receive_stock(self.kit.operator(request)).await?;
        Ok(response.into_inner().stock.expect("a success has the level"))
    }

    pub(super) async fn hear(&self, record: Record) {
        testkit::hear(&self.consumer, &self.kit.context.clock, &[record]).await;
    }

    /// available, reserved, sold.
    pub(super) async fn level(&self, sku: &str) -> (i64, i64, i64) {
        let row = sqlx::query!("select available, reserved, sold from stock where sku = $1", sku);
        let row = row.fetch_one(&self.db).await.expect("a stock row");
        (row.available, row.reserved, row.sold)
    }

    pub(super) async fn published(&self, order: Uuid) -> Vec<String> {
        let records = testkit::published(&self.db).await.into_iter().filter(|record| record.key == order);
        let named = records.enumerate().map(|(at, record)| {
            assert_eq!(record.version, at as i64 + 1, "versions have no gaps");
            record.event_type.rsplit('.').next().unwrap_or_default().to_owned()
        });
        named.collect()
    }

    /// How many transactions Postgres ended because they waited for each other.
    pub(super) async fn deadlocks(&self) -> i64 {
        // Sessions report when they have been idle for a second, or when they end.
        self.db.close().await;
        let options = self.db.connect_options();
        let mut fresh = PgConnection::connect_with(&options).await.expect("a connection");
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&mut fresh)
            .await
            .expect("statistics")
    }

    pub(super) async fn parked(&self) -> usize {
        chassis::event::dead_letter::list(&self.db, None, 0, 100).await.expect("letters").len()
    }
}

/// A port where nobody listens: most tests never ask the order service.
fn nobody() -> OrderServiceClient<client::Peer> {
    OrderServiceClient::new(client::connect("order", "http://127.0.0.1:1").expect("a URL"))
}

pub(super) fn told(order: Uuid, version: i64, event: Event) -> Record {
    let name = match &event {
        Event::OrderPlaced(_) => "souk.order.v1.OrderPlaced",
        Event::OrderConfirmed(_) => "souk.order.v1.OrderConfirmed",
        Event::OrderCancelled(_) => "souk.order.v1.OrderCancelled",
        Event::OrderExpired(_) => "souk.order.v1.OrderExpired",
        Event::OrderPaymentFailed(_) => "souk.order.v1.OrderPaymentFailed",
        other => panic!("no test tells {other:?}"),
    };
    let event = OrderEvent { order_id: order.to_string(), event: Some(event), ..Default::default() };
    testkit::record(name, order, version, event.encode_to_vec())
}

pub(super) fn placed(order: Uuid, lines: &[(&str, i32)]) -> Record {
    let line =
        |(sku, quantity): &(&str, i32)| OrderLine { sku: (*sku).into(), quantity: *quantity, ..Default::default() };
    let lines = lines.iter().map(line).collect();
    told(order, 1, Event::OrderPlaced(OrderPlaced { lines, ..Default::default() }))
}

pub(super) fn confirmed(order: Uuid) -> Record {
    told(order, 3, Event::OrderConfirmed(OrderConfirmed::default()))
}

pub(super) fn cancelled(order: Uuid) -> Record {
    told(order, 4, Event::OrderCancelled(OrderCancelled::default()))
}

/// Every way in which an order can let go of its stock.
pub(super) fn ends(order: Uuid) -> [Record; 3] {
    [
        cancelled(order),
        told(order, 4, Event::OrderExpired(OrderExpired::default())),
        told(order, 4, Event::OrderPaymentFailed(OrderPaymentFailed::default())),
    ]
}
