//! What is for sale, and for how much. Orders are priced here, from the database and never from a cache; a price that
//! comes from a client is never read.

mod archive;
mod cache;
mod category;
mod create;
mod create_category;
mod error;
mod get;
mod import;
mod in_stock;
mod list;
mod list_categories;
mod product;
mod quote;
mod rpc;
mod search;
mod service;
mod update;
mod update_category;

use std::sync::Arc;
use std::time::Duration;

use chassis::boot::config::parse_duration;
use chassis::boot::{Foundation, Prefixed, Schema, Settings};
use chassis::redis::{self, Redis};
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::souk::inventory::v1::inventory_service_client::InventoryServiceClient;

pub use import::{Import, ImportError, Report, import};

use cache::Shared;
use service::{Service, Sessions, role};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/product");
pub static SCHEMA: Schema = Schema { service: "product", migrator: &MIGRATOR, append_only: &[], consumes: &[] };

/// The product service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    #[command(flatten)]
    redis: Prefixed<redis::Config>,
    /// The inventory service, which knows what is in stock.
    #[arg(default_value = "https://127.0.0.1:9004")]
    inventory_url: client::Url,
    /// How long Redis keeps a product that was read, an hour at most. 0s: the database is always read.
    #[arg(default_value = "60s", value_parser = parse_duration)]
    cache_lifetime: Duration,
}

const LONGEST_LIFETIME: Duration = Duration::from_secs(3_600);

impl Settings for Config {
    const ROLE: roster::Role = roster::PRODUCT;
    const CONNECTIONS: u32 = 10;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let sessions = Sessions::divide(config.foundation.database_connections)?;
    let mut foundation = config.foundation.clone();
    foundation.database_connections = sessions.db;
    let db = foundation.pool(roster::PRODUCT)?;
    if config.cache_lifetime > LONGEST_LIFETIME {
        return Err("PRODUCT_CACHE_LIFETIME: at most 1h".to_owned());
    }
    let redis = Redis::new(&config.redis)?;
    let shared =
        (!config.cache_lifetime.is_zero()).then(|| Shared::new(redis.clone(), "souk:product", config.cache_lifetime));
    let is_cached = shared.is_some();
    let inventory = client::connect(&context.certificates, roster::PRODUCT, roster::INVENTORY, &config.inventory_url)?;
    let inventory = InventoryServiceClient::new(inventory);
    let service = Service::new(db, context.clock.of_database(), sessions, shared, inventory);
    let role = role(&Arc::new(service), context);
    let role = if is_cached { role.background("redis", |stop| redis.run(stop)) } else { role };
    Ok(role.listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
