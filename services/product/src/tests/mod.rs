mod archive;
mod cache;
mod category;
mod create;
mod filters;
mod get;
mod import;
mod in_stock;
mod list;
mod quote;
mod search;
mod update;
mod wire;

use std::sync::Arc;

use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;
use testkit::{Kit, Warehouse};
use tonic::transport::Channel;

use crate::cache::Shared;
use crate::service::{Service, Sessions, role};

/// The product service, and a client of it. Helpers of single tests are beside these tests.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: ProductServiceClient<Channel>,
    pub(super) channel: Channel,
    pub(super) warehouse: Warehouse,
}

impl Fixture {
    /// Without a cache.
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, None).await
    }

    pub(super) async fn open_with(db: PgPool, shared: Option<Shared>) -> Self {
        let mut kit = Kit::new();
        let sessions = Sessions { db: 6, lists: 2 };
        let (warehouse, inventory) = Warehouse::serve(roster::PRODUCT).await;
        let service = Arc::new(Service::new(db, kit.context.clock.clone(), sessions, shared, inventory));
        let channel = kit.serve(role(&service, &kit.context)).await;
        Self { kit, service, client: ProductServiceClient::new(channel.clone()), channel, warehouse }
    }

    /// A client with a connection of another party than the edge.
    pub(super) async fn client_of(&self, party: &str) -> ProductServiceClient<Channel> {
        ProductServiceClient::new(self.kit.connect(party).await)
    }
}

#[test]
fn sessions_are_divided_between_quotes_and_lists_or_are_too_few() {
    let divided = |all| Sessions::divide(all).map(|it| (it.db, it.lists));
    assert_eq!((divided(10), divided(4)), (Ok((6, 4)), Ok((3, 1))));
    assert_eq!(divided(3), Err("PRODUCT_DATABASE_CONNECTIONS: at least 4".to_owned()));
}
