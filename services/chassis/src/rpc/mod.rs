//! Serving RPCs, and calling peers.

pub(crate) mod admit;
pub mod breaker;
pub(crate) mod caller;
pub mod client;
pub mod error;
pub(crate) mod explain;
pub(crate) mod frame;
pub mod idempotency;
pub(crate) mod observe;
pub mod page;
pub mod policy;
pub(crate) mod refused;
pub(crate) mod run_to_end;
pub mod stream;
pub(crate) mod stream_limit;
pub mod token;
pub mod update;

pub use caller::Identity;
pub use run_to_end::DEFAULT_DEADLINE;
