//! What is for sale, and for how much. Orders are priced here, from the database and never from a cache; a price that
//! comes from a client is never read.

mod archive;
mod category;
mod create;
mod create_category;
mod error;
mod get;
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

use chassis::boot::{Foundation, Schema, Settings};
use chassis::{Context, Role};
use clap::Args;

use service::{Service, pool_of_lists, role};

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
    // Of all sessions, lists and searches have two fifths: 4 of 10.
    let connections = config.foundation.database_connections.max(2);
    let of_lists = (connections * 2 / 5).max(1);
    let mut foundation = config.foundation.clone();
    foundation.database_connections = connections - of_lists;
    let db = foundation.pool(roster::PRODUCT)?;
    let service = Service { lists: pool_of_lists(&db, of_lists), db, clock: context.clock.of_database() };
    Ok(role(&Arc::new(service), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
