//! What is tried on everything real: abuse of the edge, faults while customers buy, the containers of `docker-compose.yml`, what orders cost, planted bugs that tests must notice,
//! and the end-to-end tests.

pub mod abuse;
pub mod bench;
pub mod bugs;
pub mod compose;
pub mod faults;
pub mod roles;
pub mod topics;
