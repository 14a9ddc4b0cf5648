//! What Envoy asks and what tools ask at the edge: rate limits that all Envoys share, and gRPC reflection of the public contracts.

mod counter;
mod limits;
mod rate_limit;
mod reflection;

use std::net::SocketAddr;

use chassis::boot::{Prefixed, Settings};
use chassis::redis::{self, Redis};
use chassis::{Context, Role};
use clap::Args;

pub use limits::Limits;
pub use rate_limit::{Server, rate_limits};

/// The gateway.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The address on which it serves gRPC.
    #[arg()]
    listen: SocketAddr,
    #[command(flatten)]
    redis: Prefixed<redis::Config>,
    #[command(flatten)]
    limits: Prefixed<Limits>,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::GATEWAY;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let redis = Redis::new(&config.redis)?;
    let role = Role::new(roster::GATEWAY, context).listen_on(config.listen);
    let role = reflection::serve(role, context).map_err(|error| format!("the contracts: {error}"))?;
    Ok(rate_limit::serve(role, redis, &config.limits))
}
