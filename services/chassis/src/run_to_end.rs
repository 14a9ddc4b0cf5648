//! A handler that has begun runs to its end. tonic drops a handler's future when the caller goes away, and sqlx leaves a
//! transaction open on a pooled connection when that happens in the middle of `begin`. So each call is a task of its own:
//! the caller may leave, or be told DEADLINE_EXCEEDED, while the task goes on. What bounds the task are the timeouts of
//! its statements, locks and outgoing calls; what bounds their number is a limit above which calls are refused at once.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::error::{Error, Unexpected};

/// The longest message, in bytes. The edge allows 1 MiB.
const MAX_REQUEST: usize = 4 << 20;
/// How many calls one service may have under way.
const MAX_CALLS: usize = 1_024;
/// For callers that set none.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// When the caller stops waiting. In the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

#[derive(Debug, Clone)]
pub(crate) struct RunToEnd {
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    domain: &'static str,
}

impl RunToEnd {
    /// `tasks` is waited for when the process stops.
    pub(crate) fn new(tasks: TaskTracker, domain: &'static str) -> Self {
        Self { tasks, places: Arc::new(Semaphore::new(MAX_CALLS)), domain }
    }
}

impl<S> Layer<S> for RunToEnd {
    type Service = RunToEndService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RunToEndService { inner, layer: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct RunToEndService<S> {
    inner: S,
    layer: RunToEnd,
}

impl<S> Service<Request<Body>> for RunToEndService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Taken here, not in the future: tonic arms a timer of its own for the same header right after this call, and it
        // answers CANCELLED. Ours is the earlier one, and is polled first.
        let deadline = Instant::now() + grpc_timeout(request.headers()).unwrap_or(DEFAULT_DEADLINE);
        request.extensions_mut().insert(Deadline(deadline));
        let RunToEnd { tasks, places, domain } = self.layer.clone();
        let fresh = self.inner.clone();
        // The one that was polled ready is the one to call.
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let call = async move {
            // The request is whole before the task begins: a body that never comes must hold no task.
            let (head, body) = request.into_parts();
            let body = match Limited::new(body, MAX_REQUEST).collect().await {
                Ok(body) => Body::new(body.map_err(|never| match never {})),
                Err(_) => return Err(Error::field("", "the request is too large, or broke off")),
            };
            let Ok(place) = places.try_acquire_owned() else {
                return Err(Error::Overloaded);
            };
            let handler = inner.call(Request::from_parts(head, body)).instrument(tracing::Span::current());
            let task = tasks.spawn(async move {
                let response = handler.await;
                drop(place);
                response
            });
            match task.await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(never)) => match never {},
                Err(panic) => Err(Unexpected::Broken(format!("a handler panicked: {panic}")).into()),
            }
        };
        Box::pin(async move {
            let answer = timeout_at(deadline, call).await.unwrap_or(Err(Error::DeadlineExceeded));
            Ok(answer.unwrap_or_else(|error| error.into_status(domain).into_http()))
        })
    }
}

/// `5S`, `250m`: at most eight digits and a unit. Anything else counts as absent.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a header value"));
            grpc_timeout(&headers)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        for odd in ["", "S", "5", "123456789S", "-1S", "5X"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
