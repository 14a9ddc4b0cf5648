//! gRPC reflection of the public contracts, so that `grpcurl` works through Envoy without a proto file. Internal RPCs and
//! `OpsService` are not part of it.

use std::net::SocketAddr;

use chassis::boot::config::parse_loopback;
use chassis::boot::settings::Settings;
use chassis::rpc::policy::{Access, Policies};
use chassis::{Context, Role};
use clap::Args;
use prost::Message;
use prost_types::FileDescriptorSet;

/// The gateway.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The address on which it serves gRPC.
    #[arg(value_parser = parse_loopback)]
    listen: SocketAddr,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::GATEWAY;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let role = role(context).map_err(|error| format!("the contracts: {error}"))?;
    Ok(role.listen_on(config.listen))
}

fn role(context: &Context) -> Result<Role, Box<dyn std::error::Error>> {
    let contracts = only_public(FileDescriptorSet::decode(context.descriptors)?, &context.policies);
    let reflect = || {
        let builder = tonic_reflection::server::Builder::configure();
        let names = service_names(&contracts);
        let builder = names.into_iter().fold(builder, |builder, name| builder.with_service_name(name));
        builder.register_file_descriptor_set(contracts.clone())
    };
    let role = Role::new(roster::GATEWAY, context);
    Ok(role.serve_streaming(reflect().build_v1()?).serve_streaming(reflect().build_v1alpha()?))
}

/// Without the RPCs that the edge does not route.
fn only_public(mut contracts: FileDescriptorSet, policies: &Policies) -> FileDescriptorSet {
    contracts.file.retain(|file| !file.package().starts_with("souk.ops."));
    for file in &mut contracts.file {
        let package = file.package().to_owned();
        for service in &mut file.service {
            let name = service.name().to_owned();
            service.method.retain(|method| {
                let policy = policies.get(&format!("/{package}.{name}/{}", method.name()));
                policy.is_some_and(|policy| policy.access != Access::Service)
            });
        }
    }
    contracts
}

fn service_names(contracts: &FileDescriptorSet) -> Vec<String> {
    let named = contracts
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| format!("{}.{}", file.package(), service.name())));
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chassis::rpc::policy::RateClass;

    use super::*;

    #[test]
    fn reflection_has_the_rpcs_that_the_edge_routes() {
        let kit = testkit::Kit::new();
        let all = FileDescriptorSet::decode(kit.context.descriptors).expect("the contracts decode");
        let public = only_public(all, &kit.context.policies);
        let methods = public.file.iter().flat_map(|file| {
            let services =
                file.service.iter().map(move |service| (format!("{}.{}", file.package(), service.name()), service));
            services.flat_map(|(name, it)| it.method.iter().map(move |method| format!("/{name}/{}", method.name())))
        });
        let reflected: BTreeSet<String> = methods.collect();
        // The edge routes the RPCs with a rate class.
        let policies = &kit.context.policies;
        let is_routed = |path: &&str| policies.get(path).is_some_and(|policy| policy.rate_class != RateClass::Internal);
        let routed: BTreeSet<String> = policies.paths().filter(is_routed).map(str::to_owned).collect();
        assert_eq!(reflected, routed);
        assert!(!service_names(&public).iter().any(|name| name.contains("ops")));
    }

    #[tokio::test]
    async fn reflection_lists_the_public_services() {
        use tonic_reflection::pb::v1::ServerReflectionRequest;
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

        let mut kit = testkit::Kit::new();
        let role = role(&kit.context).expect("the contracts can be reflected");
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(kit.serve(role).await);
        let responses =
            client.server_reflection_info(tokio_stream::once(ask)).await.expect("reflection needs no token");
        let response = responses.into_inner().message().await.expect("a response").expect("one response");
        let Some(MessageResponse::ListServicesResponse(list)) = response.message_response else {
            panic!("not a list: {response:?}");
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(names.contains(&"souk.order.v1.OrderService".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("ops")), "{names:?}");
    }
}
