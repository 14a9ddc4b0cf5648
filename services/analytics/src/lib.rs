//! Figures of the shop for operators: sales, top products, the checkout funnel, and how long it takes to confirm an order.
//!
//! It consumes the events of orders and adds them up, each once and at the time at which it happened; nothing else changes a
//! figure. So late and repeated events lead to the same figures, and all of them can be built again from the topic. Amounts
//! of different currencies are never added. It knows customers by nothing, and publishes no events.

mod additions;
pub mod check;
mod csv;
mod error;
mod export;
mod fact;
mod funnel;
mod lag;
mod on_event;
mod project;
mod range;
mod rebuild;
mod retired;
mod rpc;
mod sales;
mod service;
mod sketch;
mod status;
mod top_products;

use std::sync::Arc;

use chassis::boot::{Foundation, Schema, Settings, TimeZone};
use chassis::event::TopicSlot;
use chassis::{Context, Role};
use clap::Args;

use rebuild::Rebuild;
use service::{Service, pool_of_reports, role};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/analytics");
pub static SCHEMA: Schema =
    Schema { service: "analytics", migrator: &MIGRATOR, append_only: &[], consumes: on_event::TOPICS };

/// The analytics service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The shop's time zone, by its name in the time zone database of IANA, such as `Europe/Berlin`: where its days and hours
    /// begin. It may be changed at any time; figures of the past follow.
    #[arg(default_value = "UTC")]
    time_zone: TimeZone,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::ANALYTICS;
    const CONNECTIONS: u32 = 10;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let topic = TopicSlot::default();
    // Of all sessions, reports have two fifths: 4 of 10.
    let connections = config.foundation.database_connections.max(2);
    let of_reports = (connections * 2 / 5).max(1);
    let mut foundation = config.foundation.clone();
    foundation.database_connections = connections - of_reports;
    let db = foundation.pool(roster::ANALYTICS)?;
    let service = Service {
        reports: pool_of_reports(&db, of_reports),
        db,
        clock: context.clock.of_database(),
        time_zone: config.time_zone.clone(),
        streams: context.streams.clone(),
        lag: Arc::default(),
        rebuild: Arc::new(Rebuild::new(&topic, context.clock.new_id())),
    };
    Ok(role(&Arc::new(service), &topic, context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
