//! Tests of the real Envoy with our configuration, in front of fakes of the services.

mod harness;
mod headers;
mod limits;
mod mutual;
mod network;
mod overload;
mod property;
mod protocol;
mod refusals;
mod routes;
mod streams;
mod strict;
mod tokens;
mod upstream;
