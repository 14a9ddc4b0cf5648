//! A proxy between two roles sees requests only if it is at the end of both of their connections. It has the certificates of
//! both, as this machine's authority made them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use roster::Role;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) struct Interceptor {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Interceptor {
    /// It is the server to `client`, and the client of `server`.
    pub(crate) fn new(pki: &Path, client: Role, server: Role) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate = |role: Role| -> Result<_> {
            let file = |extension: &str| pki.join(format!("{}.{extension}", role.name));
            let chain = CertificateDer::pem_file_iter(file("crt"))?.collect::<Result<Vec<_>, _>>()?;
            Ok((chain, PrivateKeyDer::from_pem_file(file("key"))?))
        };
        let (chain, key) = certificate(server)?;
        let accept = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
        let mut accept = accept.with_no_client_auth().with_single_cert(chain, key)?;
        let mut authorities = RootCertStore::empty();
        authorities.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
        let (chain, key) = certificate(client)?;
        let connect = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let mut connect = connect.with_root_certificates(authorities).with_client_auth_cert(chain, key)?;
        (accept.alpn_protocols, connect.alpn_protocols) = (vec![b"h2".to_vec()], vec![b"h2".to_vec()]);
        Ok(Self { acceptor: Arc::new(accept).into(), connector: Arc::new(connect).into() })
    }

    pub(crate) async fn handshake(
        &self,
        client: TcpStream,
        server: TcpStream,
    ) -> std::io::Result<(server::TlsStream<TcpStream>, client::TlsStream<TcpStream>)> {
        let host = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        tokio::try_join!(self.acceptor.accept(client), self.connector.connect(host, server))
    }
}
