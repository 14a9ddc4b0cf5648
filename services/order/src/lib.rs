//! From "I want these" to "paid, reserved, confirmed, fulfilled".
//!
//! An order is what happened to it: `order_event` is the truth, the row in `"order"` a projection written in the same
//! transaction, and each event is published through the outbox. CreateOrder prices the items and answers; everything after
//! that is events. Inventory and payment consume the events of orders, and `saga` decides what an order does about
//! theirs. The deadline of an order is the only clock of the whole flow.
//!
//! What never happens here: a price taken from a client, a state that was not reached by a legal step, an event that was
//! published without being recorded or recorded without being published.

mod cancel;
pub mod check;
mod create;
mod error;
mod expire;
mod fact;
mod fulfill;
mod get;
mod ids;
mod list;
mod on_event;
mod order;
mod rebuild;
mod record;
mod rpc;
mod saga;
mod service;
mod state;
mod states;
mod stuck;
mod unnest;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::Job;
use chassis::boot::config::{Foundation, parse_duration};
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::check::Range;
use chassis::event::Consumer;
use chassis::event::outbox::{Outbox, Wake};
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_event;
use contracts::souk::order::v1::order_service_server::OrderServiceServer;
use contracts::souk::payment::v1::payment_event;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;

pub use rebuild::Difference;

use rpc::Rpc;
use service::Service;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/order");
pub static SCHEMA: Schema = Schema { service: "order", migrator: &MIGRATOR, append_only: &["order_event"] };

/// The order service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The product service, which prices orders.
    #[arg(default_value = "http://127.0.0.1:9003")]
    product_url: String,
    /// How long an order may stay unsettled before it expires.
    #[arg(default_value = "15m", value_parser = parse_duration)]
    payment_deadline: Duration,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::ORDER;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = config.foundation.pool(roster::ORDER)?;
    let products =
        client::connect("product", &config.product_url).map_err(|error| format!("ORDER_PRODUCT_URL: {error}"))?;
    let service = Service {
        db,
        clock: context.clock.of_database(),
        products: ProductServiceClient::new(products),
        payment_deadline: config.payment_deadline,
        published: Wake::default(),
    };
    Ok(role(Arc::new(service), config.foundation.listen, context))
}

/// Builds the projection again, beside the one in use, and counts the orders. `differ` is called for each difference.
pub async fn rebuild(config: &Config, differ: impl FnMut(Difference)) -> Result<u64, String> {
    let db = config.foundation.pool(roster::ORDER)?;
    rebuild::compare(&db, Range::ALL, differ).await.map_err(|error| error.to_string())
}

fn role(service: Arc<Service>, listen: SocketAddr, context: &Context) -> Role {
    let (expire, watch) = (service.clone(), service.clone());
    let expire = Job::new("order.expire", Duration::from_secs(1), move || expire::expire_due(expire.clone()));
    let watch = Job::new("order.stuck", Duration::from_secs(10), move || stuck::count_stuck(watch.clone()));
    Role::new(roster::ORDER, listen, context)
        .database(&service.db, &service.clock)
        .serve(OrderServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .consume(consumer(service))
        .job(expire)
        .job(watch)
}

fn consumer(service: Arc<Service>) -> Consumer {
    let topics = &[inventory_event::Event::TOPIC, payment_event::Event::TOPIC];
    let db = service.db.clone();
    Consumer { name: "order", topics, db, handler: Arc::new(on_event::Peers(service)) }
}

#[cfg(test)]
mod tests;
