//! Derives the edge's routes from the contracts.

use chassis::rpc::policy::{self, Access, RateClass};
use prost_reflect::DescriptorPool;
use serde::Serialize;

/// One routed RPC.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Rpc {
    /// `/souk.order.v1.OrderService/CreateOrder`: after transcoding, REST calls have it as well.
    pub(crate) path: String,
    /// `souk.order.v1.OrderService`.
    pub(crate) service: String,
    /// The role that serves it.
    pub(crate) cluster: String,
    /// The class of its limits per client address and per user: `read` or `write`.
    pub(crate) class: &'static str,
    /// What the gateway counts it as.
    pub(crate) counted: Option<&'static str>,
    pub(crate) token: Token,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Token {
    Required,
    None,
}

/// Its timeout and retries depend on this.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    Read,
    Write,
    Stream,
}

/// Every RPC that clients may call, in the order of the contracts.
pub(crate) fn read(descriptors: &[u8]) -> Result<Vec<Rpc>, policy::Unreadable> {
    let pool = DescriptorPool::decode(descriptors)?;
    let mut rpcs = Vec::new();
    for service in pool.services().filter(|service| service.full_name().starts_with("souk.")) {
        for method in service.methods() {
            let policy = policy::read(&pool, &method)?;
            let (class, counted) = match policy.rate_class {
                // Between services, or on a role's own port only.
                RateClass::Internal => continue,
                RateClass::Read => ("read", None),
                RateClass::Write => ("write", Some("user: write")),
                RateClass::Account => ("write", Some("client: account")),
            };
            let shape = match policy.rate_class {
                _ if method.is_server_streaming() => Shape::Stream,
                RateClass::Read => Shape::Read,
                _ => Shape::Write,
            };
            rpcs.push(Rpc {
                path: policy::path(&method),
                service: service.full_name().to_owned(),
                cluster: policy.domain.trim_start_matches("souk.").to_owned(),
                class,
                counted,
                token: if policy.access == Access::Public { Token::None } else { Token::Required },
                shape,
            });
        }
    }
    Ok(rpcs)
}
