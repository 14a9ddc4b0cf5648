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

use chassis::boot::config::{Secret, parse_duration, parse_loopback};
use chassis::boot::db::{self, Schema};
use chassis::event::Consumer;
use chassis::event::outbox::{Outbox, Wake};
use chassis::rpc::{client, idempotency};
use chassis::{Clock, Context, Role};
use chassis::{Did, Step};
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
#[group(skip)]
pub struct Config {
    /// Where it listens for gRPC.
    #[arg(
        id = "INVENTORY_LISTEN",
        long = "inventory-listen",
        env = "INVENTORY_LISTEN",
        default_value = "127.0.0.1:9004", value_parser = parse_loopback
    )]
    listen: SocketAddr,
    /// Its database, with its role.
    #[arg(
        id = "INVENTORY_DATABASE_URL",
        long = "inventory-database-url",
        env = "INVENTORY_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_inventory@127.0.0.1:15432/souk_inventory"
    )]
    database_url: Secret,
    /// How many connections it may have to its database.
    #[arg(
        id = "INVENTORY_DATABASE_CONNECTIONS",
        long = "inventory-database-connections",
        env = "INVENTORY_DATABASE_CONNECTIONS",
        default_value_t = 12,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    database_connections: u32,
    /// The order service, which is asked about holds that grew old.
    #[arg(
        id = "INVENTORY_ORDER_URL",
        long = "inventory-order-url",
        env = "INVENTORY_ORDER_URL",
        default_value = "http://127.0.0.1:9005"
    )]
    order_url: String,
    /// How old a hold grows before the order service is asked about it, and asked again: longer than an order takes that
    /// nothing stands in the way of.
    #[arg(
        id = "INVENTORY_HOLD_LIMIT",
        long = "inventory-hold-limit",
        env = "INVENTORY_HOLD_LIMIT",
        default_value = "1m",
        value_parser = parse_duration
    )]
    hold_limit: Duration,
    /// How many units of one SKU a customer's orders may hold at once, before they are sold: against hoarding. 0 means any
    /// number.
    #[arg(
        id = "INVENTORY_MAX_UNITS_PER_CUSTOMER",
        long = "inventory-max-units-per-customer",
        env = "INVENTORY_MAX_UNITS_PER_CUSTOMER",
        default_value_t = 0
    )]
    max_units_per_customer: u32,
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
    let db = db::pool(&config.database_url, config.database_connections)
        .map_err(|error| format!("INVENTORY_DATABASE_URL: {error}"))?;
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
    Ok(role(Arc::new(service), config.listen, context))
}

fn role(service: Arc<Service>, listen: SocketAddr, context: &Context) -> Role {
    let (stale, forget) = (service.clone(), service.clone());
    let stale = Step::new("inventory.stale_holds", Duration::from_secs(10), move || stale::settle_stale(stale.clone()));
    let forget = Step::new("inventory.forget_answers", Duration::from_secs(60), move || {
        let service = forget.clone();
        async move { Ok(Did::any(idempotency::forget_old(&service.db).await?)) }
    });
    Role::new("inventory", "souk.inventory", listen, context)
        .needs(service.db.clone())
        .clock(service.clock.clone())
        .serve(InventoryServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .consume(consumer(service))
        .step(stale)
        .step(forget)
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
