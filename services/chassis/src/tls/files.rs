//! The three files of a role's certificate, and what is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier, WantsVersions,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::origin::Party;

/// The protocol of gRPC.
const ALPN: &[u8] = b"h2";

/// Where they are.
#[derive(Debug)]
pub(crate) struct Paths {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// What is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What new connections use.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    /// When the certificate expires, in seconds since 1970.
    pub(crate) expires: i64,
}

impl Paths {
    pub(crate) fn new(folder: &Path, role: &str) -> Self {
        let file = |name: &str, extension: &str| folder.join(format!("{name}.{extension}"));
        Self { authority: file("ca", "crt"), certificate: file(role, "crt"), key: file(role, "key") }
    }

    pub(crate) fn read(&self) -> Result<Contents, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        Ok(Contents { authority: read(&self.authority)?, certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Fails unless the certificate is the role's, is valid now, and belongs to the key and the authority. The error names a file.
    pub(crate) fn parse(&self, contents: &Contents, role: &str) -> Result<Configs, String> {
        let name = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&contents.authority).map_err(|why| name(&self.authority, &why))? {
            authorities.add(authority).map_err(|why| name(&self.authority, &why))?;
        }
        let refuse = |why: &dyn std::fmt::Display| name(&self.certificate, why);
        let chain = certificates(&contents.certificate).map_err(|why| refuse(&why))?;
        let (own, others) = chain.split_first().ok_or_else(|| refuse(&"it has no certificate"))?;
        match Party::of_certificate(own) {
            Some(party) if party.name() == role => {}
            party => {
                let party = party.map_or("nobody".to_owned(), |party| format!("`{party}`"));
                return Err(refuse(&format!("it is the certificate of {party} instead of spiffe://souk/{role}")));
            }
        }
        let (_, parsed) = X509Certificate::from_der(own).map_err(|why| refuse(&why))?;
        let expires = parsed.validity().not_after.timestamp();

        let provider = Arc::new(aws_lc_rs::default_provider());
        let (authorities, key) = (Arc::new(authorities), PrivateKeyDer::from_pem_slice(&contents.key));
        let key = key.map_err(|why| name(&self.key, &why))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone()).build();
        let verifier = verifier.map_err(|why| name(&self.authority, &why))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        verifier
            .verify_client_cert(own, others, UnixTime::since_unix_epoch(now))
            .map_err(|why| refuse(&format!("{why}, by {}", self.authority.display())))?;

        let with_key = |why| format!("{} and {}: {why}", self.certificate.display(), self.key.display());
        let mut server = versions(ServerConfig::builder_with_provider(provider.clone()))
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(with_key)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed connection would not verify the certificate again, which may have expired.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = versions(ClientConfig::builder_with_provider(provider))
            .with_root_certificates(authorities)
            .with_client_auth_cert(chain, key)
            .map_err(with_key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Configs { server: Arc::new(server), client: Arc::new(client), expires })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|why| why.to_string())?;
    if all.is_empty() { Err("it has no certificate".to_owned()) } else { Ok(all) }
}

/// TLS 1.3 alone.
fn versions<S: ConfigSide>(builder: ConfigBuilder<S, WantsVersions>) -> ConfigBuilder<S, WantsVerifier> {
    builder.with_protocol_versions(&[&TLS13]).expect("the provider has ciphers of TLS 1.3")
}
