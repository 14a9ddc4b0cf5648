//! Connections to the port of a role, past the edge, as `grpcurl` opens them with `.dev/pki/dev.crt`.

use anyhow::Result;
use stack::layout::Layout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// The server of a role, on this port.
pub fn endpoint(layout: &Layout, port: u16) -> Result<Endpoint> {
    let read = |name: &str| std::fs::read(layout.pki.join(name));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt")?));
    let tls = tls.identity(Identity::from_pem(read("dev.crt")?, read("dev.key")?));
    Ok(Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?)
}
