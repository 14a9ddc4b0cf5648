//! Events, out of a service and into it.

pub(crate) mod consumer;
pub mod dead_letter;
pub mod inbox;
pub mod outbox;
pub mod relay;

pub use consumer::{Consumer, Due, HandleError, Handler, Record};
pub use outbox::Wake;
