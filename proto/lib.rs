//! The contracts of Souk: messages, servers and clients, generated from `proto/`. What every RPC needs to know about its
//! callers is here too, as the descriptor set: bindings, policies and rules are options in it.

mod codec;
pub mod email;
pub mod event;
pub mod money;
mod scan;
mod text;

/// The `FileDescriptorSet` of all contracts and their imports, options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

#[allow(clippy::all, unreachable_pub)]
pub mod google {
    pub mod api {
        tonic::include_proto!("google.api");
    }
}

#[allow(clippy::all, unreachable_pub)]
pub mod souk {
    pub mod policy {
        pub mod v1 {
            tonic::include_proto!("souk.policy.v1");
        }
    }
    pub mod r#type {
        pub mod v1 {
            tonic::include_proto!("souk.r#type.v1");
        }
    }
    pub mod user {
        pub mod v1 {
            tonic::include_proto!("souk.user.v1");
        }
    }
    pub mod product {
        pub mod v1 {
            tonic::include_proto!("souk.product.v1");
        }
    }
    pub mod inventory {
        pub mod v1 {
            tonic::include_proto!("souk.inventory.v1");
        }
    }
    pub mod order {
        pub mod v1 {
            tonic::include_proto!("souk.order.v1");
        }
    }
    pub mod payment {
        pub mod v1 {
            tonic::include_proto!("souk.payment.v1");
        }
    }
    pub mod ops {
        pub mod v1 {
            tonic::include_proto!("souk.ops.v1");
        }
    }
}

#[allow(clippy::all, clippy::unwrap_used)]
mod rules {
    use super::{google, souk};
    use crate::scan::{Field, Holds};
    use crate::text::Text;
    include!(concat!(env!("OUT_DIR"), "/validate_impl.rs"));
    include!(concat!(env!("OUT_DIR"), "/contract_impl.rs"));
}
