//! What every service of Souk needs. It knows nothing about commerce.
//!
//! | Folder | For |
//! | --- | --- |
//! | `rpc` | RPC handlers: callers and policies, idempotency, errors with details, pages, clients of peers |
//! | `event` | events: the outbox and its relay, the inbox, consumers, dead letters |
//! | `boot` | `start` functions: roles, configuration, databases, jobs, health, telemetry, drain |
//! | `tls` | who is at the other end of a connection: certificates, and connections that use them |
//! | `check` | `souk check`: findings and ranges |
//! | `redis` | the client of Redis: what all replicas share, and may be lost |
//! | `backoff` | all of them: how long to wait before a retry |
//!
//! It never depends on a contract (it gets the descriptor set as bytes) and never talks to Kafka (the crate `bus` does).

mod backoff;
pub mod boot;
pub mod check;
pub mod event;
mod id;
pub mod redis;
pub mod rpc;
pub mod tls;

pub use backoff::Backoff;
pub use boot::clock::{Clock, parse_timestamp, timestamp};
pub use boot::job::{Job, Next};
pub use boot::role::{Context, Role};
pub use boot::wake::Wake;
pub use id::Id;
pub use rpc::caller::{Caller, Owner, accept};
pub use rpc::error::{Error, Explain, Refusal, RpcResult, Unexpected, respond};
