//! A handler that has begun runs to its end. tonic drops a handler's future when the caller disconnects, and sqlx leaves a
//! transaction open on a pooled connection if that happens during `begin`. So each call runs in a task: the caller may leave, or
//! get DEADLINE_EXCEEDED, while the task goes on. The timeouts of its statements, locks and outgoing calls bound the task; above
//! a number of concurrent calls, more are refused.
//!
//! The handler of a stream of responses ends when the stream begins; what follows is in `stream.rs`. The deadline is for its
//! beginning.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::rpc::error::{Error, Unexpected};
use crate::rpc::frame;
use crate::rpc::stream_limit::StreamLimit;

/// Concurrent calls of one service.
const MAX_CALLS: usize = 1_024;
/// The deadline of callers that set none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest deadline; longer ones are lowered to it.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(30);
/// With less time left, neither a peer nor the database is called, as the caller would have left before the response: a handler
/// that reads one row takes about as long.
pub(crate) const MIN_TIME_LEFT: Duration = Duration::from_millis(5);
/// How long a request may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// The caller's deadline, in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

tokio::task_local! {
    /// The caller's deadline, for code without access to the request.
    static DEADLINE: Instant;
    /// Tasks of a handler for which its response waits.
    static BEFORE_RESPONSE: TaskTracker;
}

/// Spawns a task; the response of the current handler, if there is one, waits for it.
pub(crate) fn before_response(work: impl Future<Output = ()> + Send + 'static) {
    let tasks = BEFORE_RESPONSE.try_with(TaskTracker::clone).unwrap_or_default();
    tasks.spawn(work);
}

/// The time until a deadline; an error if it is too short to begin anything.
pub(crate) fn time_left(deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < MIN_TIME_LEFT { Err(Error::DeadlineExceeded) } else { Ok(left) }
}

/// Whether the deadline of the current handler's caller has passed, or nearly.
pub(crate) fn is_too_late() -> bool {
    DEADLINE.try_with(|deadline| time_left(*deadline).is_err()).unwrap_or(false)
}

#[derive(Debug, Clone)]
pub(crate) struct RunToEnd {
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    streams: StreamLimit,
    domain: &'static str,
}

impl RunToEnd {
    /// The process waits for `tasks` when it stops.
    pub(crate) fn new(tasks: TaskTracker, streams: StreamLimit, domain: &'static str) -> Self {
        Self { tasks, permits: Arc::new(Semaphore::new(MAX_CALLS)), streams, domain }
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
        // Computed here, not in the future: tonic starts a timer for the same header right after this call, which results in
        // CANCELLED. Ours is earlier, and is polled first.
        let now = Instant::now();
        let deadline = now + grpc_timeout(request.headers()).unwrap_or(DEFAULT_DEADLINE).min(MAX_DEADLINE);
        request.extensions_mut().insert(Deadline(deadline));
        let takes_gzip = frame::takes_gzip(request.headers());
        let RunToEnd { tasks, permits, streams, domain } = self.layer.clone();
        let clone = self.inner.clone();
        // The service that was polled ready must be called, not its clone.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let call = async move {
            // The task starts when the request is complete, as a body may never arrive.
            let (mut head, body) = request.into_parts();
            let body = frame::receive(&mut head.headers, body, now + ARRIVES_WITHIN).await?;
            time_left(deadline)?;
            let stream = streams.admit(head.uri.path(), &head.extensions)?;
            let Ok(permit) = permits.try_acquire_owned() else {
                return Err(Error::Overloaded);
            };
            let handler =
                inner.call(Request::from_parts(head, Body::new(Full::new(body)))).instrument(tracing::Span::current());
            let task = tasks.spawn(DEADLINE.scope(deadline, async move {
                let spawned = TaskTracker::new();
                let response = BEFORE_RESPONSE.scope(spawned.clone(), handler).await;
                spawned.close();
                spawned.wait().await;
                drop(permit);
                response
            }));
            match task.await {
                Ok(Ok(response)) => Ok((response, stream)),
                Ok(Err(never)) => match never {},
                Err(panic) => Err(Unexpected::Broken(format!("a handler panicked: {panic}")).into()),
            }
        };
        Box::pin(async move {
            let outcome = timeout_at(deadline, call).await.unwrap_or(Err(Error::DeadlineExceeded));
            let outcome = match outcome {
                Ok((response, Some(stream))) => Ok(stream.follow(response)),
                Ok((response, None)) if takes_gzip => frame::compress(response).await,
                Ok((response, None)) => Ok(response),
                Err(error) => Err(error),
            };
            Ok(outcome.unwrap_or_else(|error| frame::refuse(error, domain)))
        })
    }
}

/// Parses `grpc-timeout`, such as `5S` or `250m`: at most eight digits and a unit. Anything else counts as absent.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
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
    use std::future::ready;
    use std::sync::Mutex;

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use tonic::{Code, Status};
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

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

    /// The layer's error, and the deadline of the handler, if one was called.
    async fn call(request: Request<Body>) -> (Option<Status>, Option<Instant>) {
        let seen = Arc::new(Mutex::new(None));
        let handler = service_fn({
            let seen = seen.clone();
            move |request: Request<Body>| {
                *seen.lock().expect("no panics") = request.extensions().get::<Deadline>().map(|it| it.0);
                ready(Ok::<_, Infallible>(Response::new(Body::empty())))
            }
        });
        let service = RunToEnd::new(TaskTracker::new(), StreamLimit::default(), "souk.test").layer(handler);
        let Ok(response) = service.oneshot(request).await;
        let deadline = *seen.lock().expect("no panics");
        (Status::from_header_map(response.headers()), deadline)
    }

    fn send(body: impl Into<Bytes>) -> Request<Body> {
        Request::new(Body::new(Full::new(body.into())))
    }

    #[tokio::test]
    async fn a_request_is_one_message_framed_as_it_says() {
        for good in [&b"\0\0\0\0\0"[..], b"\0\0\0\0\x02ab"] {
            let (refused, handled) = call(send(good)).await;
            assert!(refused.is_none() && handled.is_some(), "{good:?}: {refused:?}");
        }
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0",
            b"\x02\0\0\0\0",
            b"\0\xff\xff\xff\xff",
        ] {
            let (refused, handled) = call(send(bad)).await;
            let refused = refused.expect("it is refused");
            let info = refused.get_details_error_info().expect("it says why");
            assert_eq!((refused.code(), info.reason.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"), "{bad:?}");
            assert_eq!(handled, None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_arrive_is_refused() {
        let half = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"\0\0\0"))]).chain(stream::pending());
        let mut request = Request::new(Body::new(axum::body::Body::from_stream(half)));
        request.headers_mut().insert("grpc-timeout", "25S".parse().expect("a header value"));
        let begun = Instant::now();
        let (refused, handled) = call(request).await;
        assert_eq!((refused.map(|it| it.code()), handled), (Some(Code::InvalidArgument), None));
        assert!((ARRIVES_WITHIN..ARRIVES_WITHIN * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_long_deadline_is_lowered() {
        let mut request = send(&b"\0\0\0\0\0"[..]);
        request.headers_mut().insert("grpc-timeout", "99999999H".parse().expect("a header value"));
        let (_, deadline) = call(request).await;
        assert!(deadline.expect("it was handled") <= Instant::now() + MAX_DEADLINE);
    }

    #[tokio::test]
    async fn a_response_waits_for_tasks_of_its_handler() {
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let wait = Arc::new(Mutex::new(Some(wait)));
        let handler = service_fn(move |_| {
            let wait = wait.lock().expect("no panics").take().expect("called once");
            async move {
                before_response(async move { wait.await.expect("it is sent") });
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let service = RunToEnd::new(TaskTracker::new(), StreamLimit::default(), "souk.test").layer(handler);
        let mut call = tokio::spawn(service.oneshot(send(&b"\0\0\0\0\0"[..])));
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!(!call.is_finished(), "it is not done");
        }
        done.send(()).expect("it waits");
        let Ok(response) = (&mut call).await.expect("no panic");
        assert!(Status::from_header_map(response.headers()).is_none());
    }
}
