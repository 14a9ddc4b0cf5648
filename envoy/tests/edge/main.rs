//! The real Envoy on our configuration, before services that answer by the real contracts: what clients see of it.

mod ground;
mod headers;
mod limits;
mod property;
mod protocol;
mod refusals;
mod routes;
mod strict;
mod tokens;
mod upstream;
