//! From "I want these" to "paid, reserved, confirmed, fulfilled".
//!
//! An order is what happened to it: `order_event` is the truth, the row in `"order"` a projection written in the same
//! transaction, and each event is published through the outbox. CreateOrder prices the items and responds; everything after
//! that is events. Inventory and payment consume the events of orders, and `saga` decides what an order does about
//! theirs. The deadline of an order is the only clock of the whole flow.
//!
//! What never happens here: a price taken from a client, a state that was not reached by a legal step, an event that was
//! published without being recorded or recorded without being published.

mod cancel;
mod cart;
pub mod check;
mod create;
mod erase;
mod error;
mod expire;
mod fact;
mod fulfill;
mod get;
mod ids;
mod list;
mod on_event;
mod order;
mod parcel;
mod pick_list;
mod rebuild;
mod record;
mod return_items;
mod rpc;
mod saga;
mod search;
mod service;
mod shipping_address;
mod state;
mod states;
mod stuck;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::config::parse_duration;
use chassis::boot::{Foundation, Schema, Settings};
use chassis::event::Changed;
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;

pub use rebuild::{Difference, rebuild};

use service::{Service, role};
use watch::{Times, Watched};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/order");
pub static SCHEMA: Schema = Schema {
    service: "order",
    migrator: &MIGRATOR,
    append_only: &["order_event", "order_shipment"],
    consumes: on_event::TOPICS,
};

/// The order service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The product service, which prices orders.
    #[arg(default_value = "https://127.0.0.1:9003")]
    product_url: client::Url,
    /// How long an order may stay unsettled before it expires.
    #[arg(default_value = "15m", value_parser = parse_duration)]
    payment_deadline: Duration,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::ORDER;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let service = Service {
        db: config.foundation.pool(roster::ORDER)?,
        clock: context.clock.of_database(),
        products: ProductServiceClient::new(client::connect(
            &context.certificates,
            roster::ORDER,
            roster::PRODUCT,
            &config.product_url,
        )?),
        payment_deadline: config.payment_deadline,
        published: Wake::default(),
        changed: Changed::default(),
        watched: Watched::default(),
        watch_times: Times::default(),
        streams: context.streams.clone(),
    };
    Ok(role(&Arc::new(service), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
