//! A document that a verifier polls: the keys of access tokens, or the list of revoked sessions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::LazyLock;
use tokio_util::sync::CancellationToken;

use crate::boot::metrics::{self, ByProblem};

const POLL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Replicas that serve the same document; the first that responds is enough.
    pub(super) urls: Vec<String>,
    /// Of the last document.
    etag: Option<String>,
    max_bytes: usize,
}

impl Source {
    pub(super) fn new(what: &'static str, urls: Vec<String>, max_bytes: usize) -> Self {
        Self { what, urls, etag: None, max_bytes }
    }

    /// Polls until `stop` is cancelled. Each new document goes to `accept`; while there is none, the last one stays.
    pub(super) async fn poll(
        mut self,
        accept: impl Fn(&[u8]) -> Result<(), serde_json::Error>,
        stop: CancellationToken,
    ) {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build();
        let client = client.expect("a client with default TLS settings can be built");
        let mut fails = false;
        loop {
            let wait = match self.fetch(&client, &accept).await {
                Ok(()) => {
                    fails = false;
                    POLL
                }
                Err(error) => {
                    FAILURES.get_or_create(&ByProblem::new(self.what)).inc();
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(%error, urls = ?self.urls, "the {} cannot be fetched; the last ones stay", self.what);
                    }
                    RETRY
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn fetch(
        &mut self,
        client: &reqwest::Client,
        accept: &impl Fn(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), FetchError> {
        let mut last = Err(FetchError::NoUrl);
        for url in self.urls.clone() {
            last = self.fetch_from(client, &url, accept).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn fetch_from(
        &mut self,
        client: &reqwest::Client,
        url: &str,
        accept: &impl Fn(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), FetchError> {
        let mut request = client.get(url);
        if let Some(etag) = self.etag.as_deref() {
            request = request.header("if-none-match", etag);
        }
        let response = request.send().await?.error_for_status()?;
        if response.status() == http::StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        accept(&receive(response, self.max_bytes).await?)?;
        self.etag = etag;
        Ok(())
    }
}

async fn receive(mut response: reqwest::Response, max_bytes: usize) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("it is too large")]
    TooLarge,
    #[error("it has no URL")]
    NoUrl,
}
