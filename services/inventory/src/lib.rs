//! How many units there are, and for whom they are held.
//!
//! Orders are served from their events: a placed order holds all its lines or none, a confirmed one turns what it holds
//! into sold, and every other end gives it back. A hold is let go of only because of what happened to its order, never
//! because of a clock here. No unit is ever promised twice: the table would refuse it.

mod apply;
pub mod check;
mod error;
mod get;
mod move_stock;
mod on_event;
mod reservation;
mod rpc;
mod stale;
mod stock;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::Job;
use chassis::boot::config::{Foundation, parse_duration};
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::event::Consumer;
use chassis::event::outbox::{Outbox, Wake};
use chassis::rpc::client;
use chassis::{Clock, Context, Role};
use clap::Args;
use contracts::event::Event as _;
use contracts::souk::inventory::v1::inventory_service_server::InventoryServiceServer;
use contracts::souk::order::v1::order_event;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use sqlx::PgPool;

use rpc::Rpc;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/inventory");
pub static SCHEMA: Schema = Schema { service: "inventory", migrator: &MIGRATOR, append_only: &["reservation_history"] };

/// The inventory service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The order service, which is asked about holds that grew old.
    #[arg(default_value = "http://127.0.0.1:9005")]
    order_url: String,
    /// How old a hold grows before the order service is asked about it, and asked again: longer than an order takes that
    /// nothing stands in the way of.
    #[arg(default_value = "1m", value_parser = parse_duration)]
    hold_limit: Duration,
    /// How many units of one SKU a customer's orders may hold at once, before they are sold: against hoarding. 0 means any
    /// number.
    #[arg(default_value_t = 0)]
    max_units_per_customer: u32,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::INVENTORY;
    const CONNECTIONS: u32 = 12;
}

struct Service {
    db: PgPool,
    clock: Clock,
    orders: OrderServiceClient<client::Peer>,
    hold_limit: Duration,
    /// How many units of one SKU a customer may hold.
    max_units: Option<i64>,
    /// Wakes the relay of the outbox.
    published: Wake,
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = config.foundation.pool(roster::INVENTORY)?;
    let orders =
        client::connect("order", &config.order_url).map_err(|error| format!("INVENTORY_ORDER_URL: {error}"))?;
    let service = Service {
        db,
        clock: context.clock.of_database(),
        orders: OrderServiceClient::new(orders),
        hold_limit: config.hold_limit,
        max_units: Some(config.max_units_per_customer.into()).filter(|cap| *cap > 0),
        published: Wake::default(),
    };
    Ok(role(Arc::new(service), config.foundation.listen, context))
}

fn role(service: Arc<Service>, listen: SocketAddr, context: &Context) -> Role {
    let stale = service.clone();
    let stale = Job::new("inventory.stale_holds", Duration::from_secs(10), move || stale::settle_stale(stale.clone()));
    Role::new(roster::INVENTORY, listen, context)
        .database(&service.db, &service.clock)
        .serve(InventoryServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .consume(consumer(service))
        .job(stale)
}

fn consumer(service: Arc<Service>) -> Consumer {
    let db = service.db.clone();
    Consumer {
        name: "inventory",
        topics: &[order_event::Event::TOPIC],
        db,
        handler: Arc::new(on_event::Orders(service)),
    }
}

#[cfg(test)]
mod tests;
