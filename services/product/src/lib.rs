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

use chassis::boot::config::{Secret, parse_loopback};
use chassis::boot::db::{self, Schema};
use chassis::{Clock, Context, Role};
use clap::Args;
use contracts::souk::product::v1::product_service_server::ProductServiceServer;
use sqlx::PgPool;

use rpc::Rpc;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/product");
pub static SCHEMA: Schema = Schema { service: "product", migrator: &MIGRATOR, append_only: &[] };

/// The product service.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Config {
    /// Where it listens for gRPC.
    #[arg(
        id = "PRODUCT_LISTEN",
        long = "product-listen",
        env = "PRODUCT_LISTEN",
        default_value = "127.0.0.1:9003",
        value_parser = parse_loopback
    )]
    listen: SocketAddr,
    /// Its database, with its role.
    #[arg(
        id = "PRODUCT_DATABASE_URL",
        long = "product-database-url",
        env = "PRODUCT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_product@127.0.0.1:15432/souk_product"
    )]
    database_url: Secret,
    /// How many connections it may have to its database.
    #[arg(
        id = "PRODUCT_DATABASE_CONNECTIONS",
        long = "product-database-connections",
        env = "PRODUCT_DATABASE_CONNECTIONS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    database_connections: u32,
}

struct Service {
    db: PgPool,
    clock: Clock,
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = db::pool(&config.database_url, config.database_connections)
        .map_err(|error| format!("PRODUCT_DATABASE_URL: {error}"))?;
    Ok(role(Service { db, clock: context.clock.clone() }, config.listen, context))
}

fn role(service: Service, listen: SocketAddr, context: &Context) -> Role {
    Role::new("product", "souk.product", listen, context)
        .needs(service.db.clone())
        .serve(ProductServiceServer::new(Rpc(Arc::new(service))))
}

#[cfg(test)]
mod tests;
