//! gRPC reflection, as grpcurl uses it: both versions, at a role and at the edge.

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic_reflection::pb::{v1, v1alpha};
use trials::roles;

use crate::shared;

const SERVICE: &str = "souk.order.v1.OrderService";

async fn ask_v1(channel: Channel) -> Result<Vec<Vec<u8>>> {
    use v1::server_reflection_request::MessageRequest::FileContainingSymbol;
    use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
    let message_request = Some(FileContainingSymbol(SERVICE.to_owned()));
    let ask = v1::ServerReflectionRequest { message_request, ..Default::default() };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let responses = client.server_reflection_info(tokio_stream::once(ask)).await?;
    match responses.into_inner().message().await?.context("a response")?.message_response {
        Some(FileDescriptorResponse(files)) => Ok(files.file_descriptor_proto),
        other => bail!("{other:?}"),
    }
}

async fn ask_v1alpha(channel: Channel) -> Result<Vec<Vec<u8>>> {
    use v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol;
    use v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    let message_request = Some(FileContainingSymbol(SERVICE.to_owned()));
    let ask = v1alpha::ServerReflectionRequest { message_request, ..Default::default() };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let responses = client.server_reflection_info(tokio_stream::once(ask)).await?;
    match responses.into_inner().message().await?.context("a response")?.message_response {
        Some(FileDescriptorResponse(files)) => Ok(files.file_descriptor_proto),
        other => bail!("{other:?}"),
    }
}

/// The methods of the service in the response.
fn methods(files: &[Vec<u8>]) -> Result<Vec<String>> {
    let mut methods = Vec::new();
    for file in files {
        let file = FileDescriptorProto::decode(file.as_slice())?;
        let found = file.service.iter().filter(|service| format!("{}.{}", file.package(), service.name()) == SERVICE);
        methods.extend(found.flat_map(|service| &service.method).map(|method| method.name().to_owned()));
    }
    Ok(methods)
}

#[test]
fn a_role_and_the_edge_describe_the_order_service_in_both_versions() -> Result<()> {
    shared(async |stack| {
        let role = roles::endpoint(&stack.layout.pki, "dev", stack.ports().grpc(roster::ORDER))?;
        let edge = Channel::from_shared(format!("http://127.0.0.1:{}", stack.ports().edge()))?;
        for server in [role, edge] {
            let channel = server.connect().await?;
            for files in [ask_v1(channel.clone()).await?, ask_v1alpha(channel).await?] {
                let methods = methods(&files)?;
                for method in ["CreateOrder", "GetOrder", "ListOrders", "CancelOrder", "FulfillOrder", "ReturnItems"] {
                    ensure!(
                        methods.iter().any(|found| found == method),
                        "{} does not know {method}: {methods:?}",
                        server.uri()
                    );
                }
            }
        }
        Ok(())
    })
}
