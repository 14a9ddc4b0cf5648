mod away;
mod cancel;
mod cart;
mod cart_orders;
mod create;
mod erase;
mod flow;
mod impatient;
mod keys;
mod parcels;
mod pick_list;
mod read;
mod rebuild;
mod search;
mod shipping_address;
mod storm;
mod story;
mod stuck;
mod watch;
mod watch_replicas;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::event::Changed;
use contracts::souk::order::v1::cart_service_client::CartServiceClient;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use sqlx::PgPool;
use testkit::{Catalogue, Kit};
use tonic::transport::Channel;

use crate::service::{Service, role};
use crate::watch::{Times, Watched};

/// The order service over a catalogue, and a client of it. Helpers of single tests are beside these tests.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: OrderServiceClient<Channel>,
    pub(super) carts: CartServiceClient<Channel>,
    pub(super) catalogue: Catalogue,
}

impl Fixture {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, Times::default()).await
    }

    pub(super) async fn open_with(db: PgPool, watch_times: Times) -> Self {
        let (mut kit, (catalogue, products)) = (Kit::new(), Catalogue::serve(roster::ORDER).await);
        let clock = kit.context.clock.clone();
        let payment_deadline = Duration::from_secs(900);
        let service = Arc::new(Service {
            db,
            clock,
            products,
            payment_deadline,
            published: Wake::default(),
            changed: Changed::default(),
            watched: Watched::default(),
            watch_times,
            streams: kit.context.streams.clone(),
        });
        let channel = kit.serve(role(&service, &kit.context)).await;
        let (client, carts) = (OrderServiceClient::new(channel.clone()), CartServiceClient::new(channel));
        Self { kit, service, client, carts, catalogue }
    }
}
