//! The policy of each RPC: its option `(souk.policy.v1.policy)`, read once from the descriptor set.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Public,
    Customer,
    Operator,
    Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateClass {
    Internal,
    Read,
    Write,
    Account,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub access: Access,
    /// For [`Access::Service`]: which roles may call. Of [`Access::Public`], they are for the network only.
    pub callers: Vec<String>,
    pub rate_class: RateClass,
    /// Whether its response is a stream of messages.
    pub is_stream: bool,
    /// The domain of errors about it, such as `souk.order`.
    pub domain: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("{0} has no policy")]
    Missing(String),
}

/// `/souk.order.v1.OrderService/CreateOrder` -> its policy.
#[derive(Debug, Clone)]
pub struct Policies(Arc<HashMap<String, Policy>>);

impl Policies {
    pub fn read(descriptors: &[u8]) -> Result<Self, Unreadable> {
        let pool = DescriptorPool::decode(descriptors)?;
        let ours = pool.services().filter(|service| service.full_name().starts_with("souk."));
        let methods = ours.flat_map(|service| service.methods().collect::<Vec<_>>());
        let table = methods.map(|method| Ok((path(&method), read(&pool, &method)?)));
        Ok(Self(Arc::new(table.collect::<Result<_, Unreadable>>()?)))
    }

    /// With those of services that are not in the contracts.
    pub(crate) fn with(&self, others: &[(&'static str, Policy)]) -> Self {
        let mut table = (*self.0).clone();
        table.extend(others.iter().map(|(path, policy)| ((*path).to_owned(), policy.clone())));
        Self(Arc::new(table))
    }

    pub fn get(&self, path: &str) -> Option<&Policy> {
        self.0.get(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The path of its requests.
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The policy of one RPC.
pub fn read(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<Policy, Unreadable> {
    let missing = || Unreadable::Missing(method.full_name().to_owned());
    let extension = pool.get_extension_by_name("souk.policy.v1.policy").ok_or_else(missing)?;
    let options = method.options();
    let value = options.get_extension(&extension);
    let package = method.parent_service().package_name().to_owned();
    let domain = package.rsplit_once('.').map_or(package.as_str(), |(domain, _version)| domain);
    let policy = value.as_message().and_then(|message| parse(message, domain)).ok_or_else(missing)?;
    Ok(Policy { is_stream: method.is_server_streaming(), ..policy })
}

fn parse(policy: &DynamicMessage, domain: &str) -> Option<Policy> {
    let access = match policy.get_field_by_name("access")?.as_enum_number()? {
        1 => Access::Public,
        2 => Access::Customer,
        3 => Access::Operator,
        4 => Access::Service,
        _ => return None,
    };
    let rate_class = match policy.get_field_by_name("rate_class")?.as_enum_number()? {
        1 => RateClass::Read,
        2 => RateClass::Write,
        3 => RateClass::Account,
        _ => RateClass::Internal,
    };
    let callers = policy.get_field_by_name("callers")?;
    let callers = callers.as_list()?.iter().filter_map(|caller| caller.as_str().map(str::to_owned)).collect();
    Some(Policy { access, callers, rate_class, is_stream: false, domain: domain.to_owned() })
}
