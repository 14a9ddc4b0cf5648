//! Publishing events (`outbox`, `relay`) and consuming them (`consumer`, `inbox`, `dead_letter`).

pub(crate) mod consumer;
pub mod dead_letter;
pub mod inbox;
pub mod outbox;
pub mod relay;
pub mod topic;

pub use consumer::{Consumer, Due, HandleError, Handler, PartitionLag, Record};
pub use outbox::Changed;
pub use topic::{Progress, Reading, Topic, TopicSlot};
