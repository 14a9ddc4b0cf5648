//! What every service of Souk needs, and no commerce noun: boot and drain, health, callers and policies, errors with
//! details, handlers that run to their end, idempotency, pages, events in and out, background steps, telemetry.
//!
//! It never knows a contract (it is handed the descriptor set as bytes) and never talks to Kafka (the crate `bus` does).

mod admit;
mod boot;
pub mod breaker;
mod caller;
pub mod client;
mod clock;
pub mod config;
pub mod consume;
pub mod db;
pub mod dead_letter;
pub mod error;
mod explain;
mod finding;
mod frame;
mod health;
pub mod idempotency;
pub mod inbox;
pub mod metrics;
mod observe;
pub mod outbox;
pub mod page;
pub mod policy;
mod range;
mod role;
mod run_to_end;
pub mod server;
pub mod step;
pub mod telemetry;
pub mod token;
pub mod update;

pub use admit::SERVICE_HEADER;
pub use boot::{BootError, run};
pub use caller::{Caller, Identity, Owner, accept};
pub use clock::{Clock, timestamp};
pub use error::{Error, Explain, Refusal, Unexpected};
pub use finding::{Excuses, Finding, MOST_VIOLATIONS};
pub use range::Range;
pub use role::{Context, Role};
pub use run_to_end::DEFAULT_DEADLINE;
