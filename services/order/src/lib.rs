//! From "I want these" to "paid, reserved, confirmed, fulfilled".
//!
//! An order is what happened to it: `order_event` is the truth, the row in `"order"` a projection written in the same
//! transaction, and each event is published through the outbox. CreateOrder prices the items and answers; everything after
//! that is events. Inventory and payment act on what an order says, and the order decides (see `saga`) about what they
//! say. The deadline of an order is the only clock of the whole flow.
//!
//! What never happens here: a price taken from a client, a state that was not reached by a legal step, an event that was
//! published without being recorded or recorded without being published.

mod address;
mod cancel;
pub mod check;
mod create;
mod error;
mod event;
mod expire;
mod fulfill;
mod get;
mod list;
mod on_event;
mod order;
mod rebuild;
mod rpc;
mod saga;
mod states;
mod stuck;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::boot::config::{Secret, parse_duration, parse_loopback};
use chassis::boot::db::{self, Schema};
use chassis::check::Range;
use chassis::event::Consumer;
use chassis::event::outbox::{Outbox, Wake};
use chassis::rpc::{client, idempotency};
use chassis::{Clock, Context, Role};
use chassis::{Did, Step};
use clap::Args;
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event;
use contracts::souk::order::v1::order_service_server::OrderServiceServer;
use contracts::souk::payment::v1::payment_event;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;

pub use rebuild::Difference;

use rpc::Rpc;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/order");
pub static SCHEMA: Schema = Schema { service: "order", migrator: &MIGRATOR, append_only: &["order_event"] };

/// The order service.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Config {
    /// Where it listens for gRPC.
    #[arg(
        id = "ORDER_LISTEN",
        long = "order-listen",
        env = "ORDER_LISTEN",
        default_value = "127.0.0.1:9005",
        value_parser = parse_loopback
    )]
    listen: SocketAddr,
    /// Its database, with its role.
    #[arg(
        id = "ORDER_DATABASE_URL",
        long = "order-database-url",
        env = "ORDER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_order@127.0.0.1:15432/souk_order"
    )]
    database_url: Secret,
    /// How many connections it may have to its database.
    #[arg(
        id = "ORDER_DATABASE_CONNECTIONS",
        long = "order-database-connections",
        env = "ORDER_DATABASE_CONNECTIONS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    database_connections: u32,
    /// The product service, which prices orders.
    #[arg(
        id = "ORDER_PRODUCT_URL",
        long = "order-product-url",
        env = "ORDER_PRODUCT_URL",
        default_value = "http://127.0.0.1:9003"
    )]
    product_url: String,
    /// How long an order may stay unsettled before it expires.
    #[arg(
        id = "ORDER_PAYMENT_DEADLINE",
        long = "order-payment-deadline",
        env = "ORDER_PAYMENT_DEADLINE",
        default_value = "15m",
        value_parser = parse_duration
    )]
    payment_deadline: Duration,
}

struct Service {
    db: PgPool,
    clock: Clock,
    products: ProductServiceClient<client::Peer>,
    payment_deadline: Duration,
    /// Wakes the relay of the outbox.
    published: Wake,
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = db::pool(&config.database_url, config.database_connections)
        .map_err(|error| format!("ORDER_DATABASE_URL: {error}"))?;
    let products =
        client::connect("product", &config.product_url).map_err(|error| format!("ORDER_PRODUCT_URL: {error}"))?;
    let service = Service {
        db,
        clock: context.clock.of_database(),
        products: ProductServiceClient::new(products),
        payment_deadline: config.payment_deadline,
        published: Wake::default(),
    };
    Ok(role(Arc::new(service), config.listen, context))
}

/// Builds the projection again, beside the one that is in use. How many orders there are; `differ` is told how the two differ.
pub async fn rebuild(config: &Config, differ: impl FnMut(Difference)) -> Result<u64, String> {
    let db = db::pool(&config.database_url, 1).map_err(|error| format!("ORDER_DATABASE_URL: {error}"))?;
    rebuild::compare(&db, Range::ALL, differ).await.map_err(|error| error.to_string())
}

fn role(service: Arc<Service>, listen: SocketAddr, context: &Context) -> Role {
    let (expire, watch, forget) = (service.clone(), service.clone(), service.clone());
    let expire = Step::new("order.expire", Duration::from_secs(1), move || expire::expire_due(expire.clone()));
    let watch = Step::new("order.stuck", Duration::from_secs(10), move || stuck::count_stuck(watch.clone()));
    let forget = Step::new("order.forget_answers", Duration::from_secs(60), move || {
        let service = forget.clone();
        async move { Ok(Did::any(idempotency::forget_old(&service.db).await?)) }
    });
    Role::new("order", "souk.order", listen, context)
        .needs(service.db.clone())
        .clock(service.clock.clone())
        .serve(OrderServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .consume(consumer(service))
        .step(expire)
        .step(watch)
        .step(forget)
}

fn consumer(service: Arc<Service>) -> Consumer {
    let topics = &[inventory_event::Event::TOPIC, payment_event::Event::TOPIC];
    let db = service.db.clone();
    Consumer { name: "order", topics, db, handler: Arc::new(on_event::Peers(service)) }
}

#[cfg(test)]
mod tests;
