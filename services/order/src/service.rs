use std::time::Duration;

use chassis::Clock;
use chassis::event::outbox::Wake;
use chassis::rpc::client;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;

/// What verbs, steps and the consumer work with.
pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) products: ProductServiceClient<client::Peer>,
    pub(crate) payment_deadline: Duration,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
}
