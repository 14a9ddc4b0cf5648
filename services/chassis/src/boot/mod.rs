//! Configures, starts, runs and stops roles.

pub(crate) mod clock;
pub mod config;
mod databases;
pub mod db;
pub(crate) mod health;
pub(crate) mod job;
pub mod log_limit;
pub mod metrics;
mod probe;
pub(crate) mod role;
mod run;
pub mod server;
pub mod settings;
pub mod telemetry;
mod time_zone;
pub(crate) mod wake;

pub use config::Foundation;
pub use databases::Databases;
pub use db::{Database, Schema};
pub use probe::{Unhealthy, health_of};
pub use run::{BootError, run};
pub use settings::{Prefix, Prefixed, Settings};
pub use time_zone::TimeZone;
