//! One machine, one command: installs, starts and supervises everything real, plays the payment provider, and drives the
//! end-to-end tests.

pub mod provider;
