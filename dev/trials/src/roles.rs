//! Connections to the port of a role, past the edge, as `grpcurl` opens them with a certificate of `.dev/pki`.

use std::path::Path;

use anyhow::Result;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// The server of a role, on this port, for a party that has its certificate in this folder.
pub fn endpoint(pki: &Path, party: &str, port: u16) -> Result<Endpoint> {
    let read = |name: &str| std::fs::read(pki.join(name));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt")?));
    let tls = tls.identity(Identity::from_pem(read(&format!("{party}.crt"))?, read(&format!("{party}.key"))?));
    Ok(Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?)
}
