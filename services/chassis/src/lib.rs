//! What every service of Souk needs, and no commerce noun.
//!
//! | Folder | For |
//! | --- | --- |
//! | `rpc` | verbs: callers and policies, idempotency, errors with details, pages, clients of peers |
//! | `event` | events: the outbox and its relay, the inbox, consumers, dead letters |
//! | `boot` | `start` functions: roles, configuration, databases, background steps, health, telemetry, drain |
//! | `check` | `souk check`: what an invariant's check found |
//! | `backoff` | all of them: how long to wait before something is tried again |
//!
//! It never knows a contract (it is handed the descriptor set as bytes) and never talks to Kafka (the crate `bus` does).

mod backoff;
pub mod boot;
pub mod check;
pub mod event;
mod id;
pub mod rpc;

pub use backoff::Backoff;
pub use boot::clock::{Clock, timestamp};
pub use boot::role::{Context, Role};
pub use boot::step::{Did, Step};
pub use id::Id;
pub use rpc::caller::{Caller, Owner, accept};
pub use rpc::error::{Error, Explain, Refusal, RpcResult, Unexpected, respond};
