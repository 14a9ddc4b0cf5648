//! Everything on one machine: installs what is missing, then starts and supervises the real Postgres, Kafka, Envoy and
//! `souk`, with a simulator in the place of the payment provider.

pub mod controlled;
pub mod install;
pub mod layout;
pub mod parts;
pub mod prepare;
mod shared_memory;
pub mod shop;
mod spec;
pub mod supervisor;
pub mod test;
pub mod up;
