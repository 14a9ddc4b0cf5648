//! How many units there are, and for whom they are held.
//!
//! It consumes the events of orders: a placed order holds all its lines or none, a confirmed one turns what it holds into sold,
//! and every other end releases or returns it. A hold is released only because of what happened to its order, never because of
//! a clock here. No unit is ever promised twice: the table would refuse it.

mod apply;
pub mod check;
mod error;
mod get;
mod ids;
mod low_stock;
mod move_stock;
mod movement;
mod on_event;
mod record;
mod reservation;
mod rpc;
mod service;
mod stale;
mod stock;
mod take_back;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::config::parse_duration;
use chassis::boot::{Foundation, Schema, Settings};
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;

use service::{Service, role};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/inventory");
pub static SCHEMA: Schema = Schema {
    service: "inventory",
    migrator: &MIGRATOR,
    append_only: &["reservation_history", "stock_movement"],
    consumes: on_event::TOPICS,
};

/// The inventory service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The order service. Old holds read the state of their orders from it.
    #[arg(default_value = "https://127.0.0.1:9005")]
    order_url: client::Url,
    /// How old a hold is when the state of its order is read, and the interval at which it is read again: longer than an order
    /// normally takes.
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

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let service = Service {
        db: config.foundation.pool(roster::INVENTORY)?,
        clock: context.clock.of_database(),
        orders: OrderServiceClient::new(client::connect(
            &context.certificates,
            roster::INVENTORY,
            roster::ORDER,
            &config.order_url,
        )?),
        hold_limit: config.hold_limit,
        max_units: Some(config.max_units_per_customer.into()).filter(|cap| *cap > 0),
        published: Wake::default(),
    };
    Ok(role(&Arc::new(service), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
