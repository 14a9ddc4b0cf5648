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
mod update;

use std::net::SocketAddr;
use std::sync::Arc;

use chassis::boot::config::Foundation;
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::{Clock, Context, Role};
use clap::Args;
use contracts::souk::product::v1::product_service_server::ProductServiceServer;
use sqlx::PgPool;

use rpc::Rpc;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/product");
pub static SCHEMA: Schema = Schema { service: "product", migrator: &MIGRATOR, append_only: &[] };

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

struct Service {
    db: PgPool,
    clock: Clock,
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = config.foundation.pool(roster::PRODUCT)?;
    Ok(role(Service { db, clock: context.clock.of_database() }, config.foundation.listen, context))
}

fn role(service: Service, listen: SocketAddr, context: &Context) -> Role {
    Role::new(roster::PRODUCT, listen, context)
        .database(&service.db, &service.clock)
        .serve(ProductServiceServer::new(Rpc(Arc::new(service))))
}

#[cfg(test)]
mod tests;
