//! One machine, one command: installs what is missing, starts the real Postgres, Kafka, Envoy and `souk` under one
//! supervisor, plays the payment provider, and drives the end-to-end tests. No part is imitated, except the bank.

pub mod bench;
pub mod bugs;
pub mod faults;
pub mod install;
pub mod layout;
pub mod parts;
pub mod prepare;
pub mod provider;
mod shared_memory;
pub mod shop;
mod spec;
pub mod stack;
pub mod supervisor;
pub mod test;
pub mod topics;
pub mod up;
