//! The contracts of Souk: messages, servers and clients, generated from `proto/`, and their descriptor set, whose options
//! are the HTTP bindings, policies and validation rules.

mod codec;
pub mod email;
pub mod event;
pub mod money;
mod scan;
mod text;

/// The `FileDescriptorSet` of all contracts and their imports, options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

/// A module for each package.
#[allow(clippy::all, unreachable_pub)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::{google, souk};

#[allow(clippy::all, clippy::unwrap_used)]
mod rules {
    use super::{google, souk};
    use crate::scan::{Content, Field};
    use crate::text::Text;
    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
    include!(concat!(env!("OUT_DIR"), "/contract_impl.rs"));
}
