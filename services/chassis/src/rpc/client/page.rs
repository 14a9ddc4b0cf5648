//! Documents that a peer serves beside its RPCs.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use super::peer::{Peer, PeerError, RETRIES, Route};

/// Until the headers of the response.
const TIMEOUT: &str = "2S";
/// Until its end.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// A document, and its tag.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) etag: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the response did not end in time")]
    Late,
    #[error("the response is {0}")]
    Status(StatusCode),
    #[error("the body is lost, or longer than {max} bytes: {source}")]
    Body { max: usize, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Reads a document, or nothing if it still has this tag. If a replica fails, another one is asked.
pub(crate) async fn read(
    peer: &Peer,
    path: &'static str,
    known: Option<&HeaderValue>,
    max: usize,
) -> Result<Option<Page>, PageError> {
    let route = Route::default();
    for retries in (1..=RETRIES).rev() {
        match read_in_time(peer, path, known, max, route.with_retries(retries)).await {
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
            read => return read,
        }
    }
    read_in_time(peer, path, known, max, route).await
}

/// A body that never ends takes no longer than one that never begins.
async fn read_in_time(
    peer: &Peer,
    path: &'static str,
    known: Option<&HeaderValue>,
    max: usize,
    route: Route,
) -> Result<Option<Page>, PageError> {
    let read = timeout(BODY_TIMEOUT, read_once(peer, path, known, max, route));
    read.await.unwrap_or(Err(PageError::Late))
}

async fn read_once(
    peer: &Peer,
    path: &'static str,
    known: Option<&HeaderValue>,
    max: usize,
    route: Route,
) -> Result<Option<Page>, PageError> {
    let mut request = Request::get(path).header("grpc-timeout", TIMEOUT).extension(route);
    if let Some(etag) = known {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let request = request.body(Body::empty()).expect("a path and headers");
    let response = peer.clone().call(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(None),
        other => return Err(PageError::Status(other)),
    }
    let etag = response.headers().get(ETAG).cloned();
    let body = Limited::new(response.into_body(), max).collect().await;
    let body = body.map_err(|source| PageError::Body { max, source })?.to_bytes();
    Ok(Some(Page { body, etag }))
}
