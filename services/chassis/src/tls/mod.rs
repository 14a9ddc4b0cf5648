//! Mutual TLS between roles, and from the edge to them: each side has a certificate that names it, and knows the other by its.
//! In a mesh, sidecars do this, and roles talk to theirs in plain text.

pub(crate) mod accept;
pub(crate) mod certificate;
pub(crate) mod connect;
mod files;
pub(crate) mod origin;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::boot::settings::Prefix;

pub use accept::{Connection, accept};
pub use certificate::Certificate;
pub use origin::{Origin, Party, UriPrefix};

/// How roles and the edge know each other.
#[derive(Debug, Clone, Args)]
pub struct Tls {
    /// `mutual`: by certificates. `mesh`: a service mesh does it. Roles then talk in plain text to their sidecar on loopback,
    /// which names the caller in `x-forwarded-client-cert`.
    #[arg(default_value = "mutual")]
    pub mode: Mode,
    /// In a mesh, what the URIs of Souk's service accounts begin with, such as `spiffe://cluster.local/ns/souk/sa/`. Callers with
    /// other URIs are refused.
    pub mesh_prefix: Option<UriPrefix>,
    /// The folder of `ca.crt`, and of the certificate and key of each role: `order.crt` and `order.key`. They are read again
    /// when they change.
    #[arg(default_value = ".dev/pki")]
    pub directory: PathBuf,
    /// Parties that may call roles as the edge may, comma-separated, by the names in their certificates: such as `dev`, a person with
    /// grpcurl. Unset: only the edge and roles.
    #[arg(value_delimiter = ',', value_parser = Party::parse)]
    pub callers: Vec<Party>,
}

impl Prefix for Tls {
    const PREFIX: &'static str = "souk_tls";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Mutual,
    Mesh,
}

/// How a role and its peers know each other.
#[derive(Debug, Clone)]
pub enum Identity {
    Certificate(Arc<Certificate>),
    /// By sidecars, which name callers by URIs with this prefix.
    Mesh(UriPrefix),
}

/// The certificates of the roles of this process.
#[derive(Debug)]
pub struct Certificates {
    settings: Tls,
    loaded: Mutex<HashMap<&'static str, Arc<Certificate>>>,
}

impl Certificates {
    pub fn new(settings: &Tls) -> Self {
        Self { settings: settings.clone(), loaded: Mutex::default() }
    }

    /// Whether this party may call a role.
    pub(crate) fn admits(&self, party: &Party) -> bool {
        party.is_part_of_souk() || self.settings.callers.contains(party)
    }

    /// The certificate of a role, which is read when it is first used. The error names the setting.
    pub fn of(&self, role: &'static str) -> Result<Identity, String> {
        if self.settings.mode == Mode::Mesh {
            let prefix = self.settings.mesh_prefix.clone();
            return prefix.map(Identity::Mesh).ok_or("SOUK_TLS_MESH_PREFIX: SOUK_TLS_MODE=mesh needs it".to_owned());
        }
        let mut loaded = self.loaded.lock().expect("nothing panics while it holds this lock");
        if let Some(certificate) = loaded.get(role) {
            return Ok(Identity::Certificate(certificate.clone()));
        }
        let certificate = Certificate::load(&self.settings.directory, role);
        let certificate = Arc::new(certificate.map_err(|why| format!("SOUK_TLS_DIRECTORY: {why}"))?);
        loaded.insert(role, certificate.clone());
        Ok(Identity::Certificate(certificate))
    }

    /// Reads changed files until `stop` is cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = tokio::time::sleep(certificate::READ_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let loaded: Vec<_> = {
                let loaded = self.loaded.lock().expect("nothing panics while it holds this lock");
                loaded.values().cloned().collect()
            };
            for certificate in loaded {
                certificate.read_again().await;
            }
        }
    }
}
