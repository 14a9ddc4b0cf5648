//! Runs all of Souk on one machine: installs what is missing, then starts and supervises the real Postgres, Redis, Kafka, Envoy and
//! `souk`, with a simulator instead of the payment provider.

pub mod client;
pub mod controlled;
pub mod coverage;
pub mod install;
pub mod kafka;
mod keys;
pub mod layout;
pub mod mail;
pub mod parts;
pub mod pki;
pub mod postgres;
pub mod prepare;
pub mod purchase;
pub mod secrets;
mod shared_memory;
mod spec;
pub mod supervisor;
pub mod test;
pub mod up;
