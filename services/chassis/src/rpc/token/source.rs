//! A document that a verifier polls: the keys of access tokens, or the list of revoked sessions.

use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio_util::sync::CancellationToken;

use crate::boot::metrics::{self, ByProblem};
use crate::rpc::client::Peer;
use crate::rpc::client::page::{self, PageError};

const POLL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);

static FAILURES: LazyLock<Family<ByProblem, Counter>> = LazyLock::new(|| {
    metrics::register(
        "token_poll_failures",
        "Failed polls of the keys of access tokens, or of the revoked sessions",
        Family::default(),
    )
});

pub(super) struct Source {
    /// Such as `keys`, in the log and in the metric.
    pub(super) what: &'static str,
    user: Peer,
    path: &'static str,
    /// Of the last document.
    etag: Option<HeaderValue>,
    max_bytes: usize,
}

impl Source {
    /// A document that the user service serves at this path.
    pub(super) fn new(what: &'static str, user: Peer, path: &'static str, max_bytes: usize) -> Self {
        Self { what, user, path, etag: None, max_bytes }
    }

    /// Polls until `stop` is cancelled. Each new document goes to `accept`; while there is none, the last one stays.
    pub(super) async fn poll(
        mut self,
        accept: impl Fn(&[u8]) -> Result<(), serde_json::Error>,
        stop: CancellationToken,
    ) {
        let mut fails = false;
        loop {
            let wait = match self.fetch(&accept).await {
                Ok(()) => {
                    fails = false;
                    POLL
                }
                Err(error) => {
                    FAILURES.get_or_create(&ByProblem::new(self.what)).inc();
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(%error, "the {} cannot be read from the user service; the last ones stay", self.what);
                    }
                    RETRY
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn fetch(&mut self, accept: &impl Fn(&[u8]) -> Result<(), serde_json::Error>) -> Result<(), FetchError> {
        let read = page::read(&self.user, self.path, self.etag.as_ref(), self.max_bytes).await?;
        if let Some(page) = read {
            accept(&page.body)?;
            self.etag = page.etag;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Page(#[from] PageError),
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}
