//! What is for sale, and for how much. Orders are priced here, from the database and never from a cache; a price that
//! comes from a client is never read.

mod archive;
mod create;
mod error;
mod get;
mod list;
mod product;
mod quote;
mod rpc;
mod service;
mod update;

use std::sync::Arc;

use chassis::boot::{Foundation, Schema, Settings};
use chassis::{Context, Role};
use clap::Args;

use service::{Service, role};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/product");
pub static SCHEMA: Schema = Schema { service: "product", migrator: &MIGRATOR, append_only: &[], consumes: &[] };

/// The product service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::PRODUCT;
    const CONNECTIONS: u32 = 10;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let service = Service { db: config.foundation.pool(roster::PRODUCT)?, clock: context.clock.of_database() };
    Ok(role(&Arc::new(service), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
