mod cap;
mod keys;
mod low_stock;
mod movement;
mod reservation;
mod stale;
mod stock;
mod take_back;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::rpc::client::Peer;
use contracts::souk::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use sqlx::PgPool;
use testkit::{Kit, unreachable};
use tonic::transport::Channel;

use crate::service::{Service, role};

/// The inventory service, and a client of it. Helpers of single tests are beside these tests.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: InventoryServiceClient<Channel>,
}

impl Fixture {
    /// Most tests never ask the order service.
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, OrderServiceClient::new(unreachable(roster::INVENTORY, roster::ORDER)), None).await
    }

    /// `max_units`: how many units of a SKU a customer may hold.
    pub(super) async fn open_with(db: PgPool, orders: OrderServiceClient<Peer>, max_units: Option<i64>) -> Self {
        let mut kit = Kit::new();
        let (clock, hold_limit) = (kit.context.clock.clone(), Duration::from_secs(1_500));
        let service = Arc::new(Service { db, clock, orders, hold_limit, max_units, published: Wake::default() });
        let client = InventoryServiceClient::new(kit.serve(role(&service, &kit.context)).await);
        Self { kit, service, client }
    }
}
