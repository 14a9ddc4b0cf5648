//! The certificate of a role, which is replaced while the role runs: new connections use the new one.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::boot::metrics::{self, ByRole};
use crate::tls::files::{Configs, Contents, Paths};

/// How often files are read, to find those that changed.
pub(crate) const READ_EVERY: Duration = Duration::from_secs(2);
/// How long a program that replaces the files may take from the first to the last.
const REPLACED_WITHIN: Duration = Duration::from_millis(200);

static EXPIRES: LazyLock<Family<ByRole, Gauge>> = LazyLock::new(|| {
    metrics::register(
        "certificate_expires",
        "When a role's certificate expires, in seconds since 1970",
        Family::default(),
    )
});
static REFUSED: LazyLock<Family<ByRole, Counter>> = LazyLock::new(|| {
    let help = "Changes of a role's certificate that were not used, as the files are bad";
    metrics::register("certificate_refused", help, Family::default())
});

#[derive(Debug)]
pub struct Certificate {
    role: &'static str,
    paths: Paths,
    configs: RwLock<Arc<Configs>>,
    /// The contents that were read last, also if they are bad.
    seen: Mutex<Result<Contents, String>>,
}

impl Certificate {
    pub(crate) fn load(folder: &Path, role: &'static str) -> Result<Self, String> {
        let paths = Paths::new(folder, role);
        let contents = paths.read()?;
        let configs = paths.parse(&contents, role)?;
        EXPIRES.get_or_create(&ByRole::new(role)).set(configs.expires);
        Ok(Self { role, paths, configs: RwLock::new(Arc::new(configs)), seen: Mutex::new(Ok(contents)) })
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn configs(&self) -> Arc<Configs> {
        self.configs.read().expect("nothing panics while it holds this lock").clone()
    }

    /// Uses the files if they changed and are good. If they are bad, the last good ones stay in use.
    pub(crate) async fn read_again(&self) {
        let mut now = self.paths.read();
        if now == *self.seen() {
            return;
        }
        let mut parsed = self.parse(&now);
        if parsed.is_err() {
            // The files are replaced one after the other.
            tokio::time::sleep(REPLACED_WITHIN).await;
            now = self.paths.read();
            parsed = self.parse(&now);
        }
        match parsed {
            Ok(configs) => {
                EXPIRES.get_or_create(&ByRole::new(self.role)).set(configs.expires);
                *self.configs.write().expect("nothing panics while it holds this lock") = Arc::new(configs);
                tracing::info!(role = self.role, "the certificate was replaced; new connections use it");
            }
            Err(error) => {
                REFUSED.get_or_create(&ByRole::new(self.role)).inc();
                tracing::error!(
                    role = self.role,
                    error,
                    "the changed certificate is bad; the last good one stays in use"
                );
            }
        }
        *self.seen() = now;
    }

    fn parse(&self, contents: &Result<Contents, String>) -> Result<Configs, String> {
        self.paths.parse(contents.as_ref().map_err(Clone::clone)?, self.role)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Result<Contents, String>> {
        self.seen.lock().expect("nothing panics while it holds this lock")
    }
}
