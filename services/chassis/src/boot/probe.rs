//! Asks a role of this machine for its health, as `souk health` does.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use roster::Role;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::tls::Certificates;
use crate::tls::connect::Connector;

/// Less than the second that probes of Docker and Kubernetes wait by default, so that they report our error and not theirs.
const WITHIN: Duration = Duration::from_millis(900);

/// Why a role is not healthy, or its health unknown.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The error names the setting.
    #[error("{0}")]
    Setting(String),
    #[error("{role} at {address} {why}")]
    Role { role: &'static str, address: SocketAddr, why: String },
}

/// Succeeds if the role that listens on `listen` is SERVING. The connection has the role's own identity at both ends.
pub async fn health_of(role: Role, listen: SocketAddr, certificates: &Certificates) -> Result<(), Unhealthy> {
    let identity = certificates.of(role.name).map_err(Unhealthy::Setting)?;
    let host = ServerName::try_from(role.name).expect("the name of a role is a host name");
    let (address, connector) = (reachable(listen), Connector { peer: role.name, host, identity });
    let status = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a host and a port");
        let connect = move |_| {
            let connector = connector.clone();
            async move { connector.connect(address).await.map(TokioIo::new) }
        };
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await;
        let channel = channel.map_err(|error| format!("is not reached: {}", innermost(&error)))?;
        ask(channel).await.map_err(|status| format!("does not answer: {}", status.message()))
    };
    let why = match timeout(WITHIN, status).await {
        Ok(Ok(status)) if status == ServingStatus::Serving as i32 => return Ok(()),
        Ok(Ok(_)) => "is NOT_SERVING".to_owned(),
        Ok(Err(why)) => why,
        Err(_) => format!("does not answer within {WITHIN:?}"),
    };
    Err(Unhealthy::Role { role: role.name, address, why })
}

/// Of the whole role, and not of one of its services.
async fn ask(channel: Channel) -> Result<i32, tonic::Status> {
    Ok(HealthClient::new(channel).check(HealthCheckRequest::default()).await?.into_inner().status)
}

/// A role that listens on every address is reached over loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn innermost(error: &tonic::transport::Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_over_loopback() {
        let reached = |listen: &str| reachable(listen.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:9005"), "127.0.0.1:9005");
        assert_eq!(reached("[::]:9005"), "[::1]:9005");
        assert_eq!(reached("10.0.0.7:9005"), "10.0.0.7:9005");
    }
}
