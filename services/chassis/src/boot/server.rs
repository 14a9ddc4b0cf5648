//! The gRPC server of one role.

use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

use crate::boot::health::set_serving;
use crate::boot::role::{Context, Role};
use crate::rpc::admit::Admit;
use crate::rpc::explain::explain;
use crate::rpc::observe::Observe;
use crate::rpc::refused::RefusalLog;
use crate::tls::Origin;

/// Concurrent HTTP/2 streams per connection.
const MAX_STREAMS: u32 = 1_024;
/// HTTP/2 streams per connection that may be reset before the server has accepted them. The edge sends the calls of all clients
/// through a few connections, and a client that abandons many calls must not fail those of others: by default, h2 closes the
/// connection at 20.
const MAX_RESETS: usize = 1_024;
/// Connections are closed at this age, so that callers find new replicas.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Reflection describes it, too.
const HEALTH: &str = "grpc.health.v1.Health";

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves the role's routes, health and reflection until `stop` is cancelled, then finishes running calls.
pub async fn serve<I, IO, E>(
    role: &mut Role,
    context: &Context,
    incoming: I,
    stop: CancellationToken,
) -> Result<(HealthReporter, impl Future<Output = Result<(), tonic::transport::Error>> + use<I, IO, E>), ServeError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected<ConnectInfo = Origin> + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    set_serving(&health, &role.services, tonic_health::ServingStatus::Serving).await;
    let mut routes = std::mem::take(&mut role.routes);
    routes.add_service(health_service);
    if !role.services.is_empty() {
        let reflect = || {
            let builder = tonic_reflection::server::Builder::configure();
            let builder = builder.register_encoded_file_descriptor_set(context.descriptors);
            let builder = builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let builder = builder.with_service_name(HEALTH);
            role.services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
        };
        routes.add_service(reflect().build_v1()?);
        routes.add_service(reflect().build_v1alpha()?);
    }
    let (pages, paths) = std::mem::take(&mut role.pages);
    let routes = Routes::from(routes.routes().into_axum_router().merge(pages));
    let domain = role.domain;
    let policies = context.policies.with(&role.foreign);
    let foreign = role.foreign.iter().filter_map(|(path, _)| path.split('/').nth(1));
    let observed: Vec<_> = role.services.iter().copied().chain(foreign).collect();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .max_connection_age(MAX_AGE)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .http2_max_header_list_size(16 << 10)
        .layer(MapResponseLayer::new(move |response| explain(response, domain)))
        .layer(Observe::new(&policies, &observed))
        .layer(Admit {
            policies,
            pages: paths.into(),
            verifier: context.verifier.clone(),
            certificates: context.certificates.clone(),
            log: RefusalLog::new().into(),
        })
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    Ok((health, server))
}
