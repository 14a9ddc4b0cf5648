mod archive;
mod cache;
mod category;
mod create;
mod filters;
mod get;
mod import;
mod list;
mod quote;
mod search;
mod update;
mod wire;

use std::sync::Arc;

use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;
use testkit::Kit;
use tonic::transport::Channel;

use crate::cache::{Cache, Shared};
use crate::service::{Service, role};

/// The product service, and a client of it. Helpers of single tests are beside these tests.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: ProductServiceClient<Channel>,
    pub(super) channel: Channel,
}

impl Fixture {
    /// Without a cache.
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, None).await
    }

    pub(super) async fn open_with(db: PgPool, shared: Option<Shared>) -> Self {
        let mut kit = Kit::new();
        let (lists, clock) = (db.clone(), kit.context.clock.clone());
        let service = Arc::new(Service { lists, db, clock, cache: Cache::new(shared) });
        let channel = kit.serve(role(&service, &kit.context)).await;
        Self { kit, service, client: ProductServiceClient::new(channel.clone()), channel }
    }

    /// A client with a connection of another party than the edge.
    pub(super) async fn client_of(&self, party: &str) -> ProductServiceClient<Channel> {
        ProductServiceClient::new(self.kit.connect(party).await)
    }
}
