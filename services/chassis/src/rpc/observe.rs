//! The span, duration and outcome of every call. The outermost layer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Span;

use crate::boot::metrics::{self, ByRpc};
use crate::boot::telemetry;
use crate::rpc::policy::Policies;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    pub(crate) rpc: String,
    pub(crate) code: &'static str,
}

pub(crate) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

static CALLS: LazyLock<Family<Outcome, Counter>> =
    LazyLock::new(|| metrics::register("rpc", "Calls, by RPC and code", Family::default()));
/// In seconds, up to the longest deadline: a call that times out must be within a bucket.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
static SECONDS: LazyLock<Family<ByRpc, Histogram>> = LazyLock::new(|| {
    let make: fn() -> Histogram = || Histogram::new(BUCKETS);
    metrics::register(
        "rpc_seconds",
        "Duration of calls, by RPC; of a stream, until it begins",
        Family::new_with_constructor(make),
    )
});

/// The metrics of one RPC, looked up once and not per call.
struct Meters {
    codes: [Counter; 17],
    seconds: Histogram,
}

impl Meters {
    fn of(path: &str) -> Self {
        let rpc = path.trim_start_matches('/').to_owned();
        let codes = CODES.map(|code| CALLS.get_or_create_owned(&Outcome { rpc: rpc.clone(), code }));
        Self { codes, seconds: SECONDS.get_or_create_owned(&ByRpc::new(rpc)) }
    }
}

#[derive(Clone)]
pub(crate) struct Observe(Arc<HashMap<String, Arc<Meters>>>);

impl Observe {
    pub(crate) fn new(policies: &Policies, services: &[&'static str]) -> Self {
        let served = policies.paths().filter(|path| {
            let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            services.contains(&service)
        });
        Self(Arc::new(served.map(|path| (path.to_owned(), Arc::new(Meters::of(path)))).collect()))
    }
}

impl<S> Layer<S> for Observe {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner, observe: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct ObserveService<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<Request<Body>> for ObserveService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let meters = self.observe.0.get(path).cloned();
        let span = match meters {
            // Health checks and reflection would only be noise.
            None => Span::none(),
            Some(_) => {
                let request_id = text(request.headers(), "x-request-id").unwrap_or_default();
                let span = tracing::info_span!("rpc", rpc = path, request_id);
                telemetry::adopt_parent(&span, text(request.headers(), "traceparent"));
                span
            }
        };
        let inner = span.in_scope(|| self.inner.call(request));
        Observed { inner, span, meters, begun: Instant::now() }
    }
}

pin_project! {
    pub(crate) struct Observed<F> {
        #[pin]
        inner: F,
        span: Span,
        meters: Option<Arc<Meters>>,
        begun: Instant,
    }
}

impl<F> Future for Observed<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let outcome = std::task::ready!(this.inner.poll(cx));
        if let (Some(meters), Ok(response)) = (this.meters.as_ref(), &outcome) {
            // The code of an error is in the headers; that of a success follows in the trailers.
            meters.codes[code_in(response.headers()).unwrap_or(0)].inc();
            meters.seconds.observe(this.begun.elapsed().as_secs_f64());
        }
        Poll::Ready(outcome)
    }
}

/// The code in headers or trailers, as an index of [`CODES`].
pub(crate) fn code_in(headers: &HeaderMap) -> Option<usize> {
    let code = text(headers, "grpc-status")?.parse::<usize>().ok()?;
    Some(code.min(CODES.len() - 1))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::run_to_end::{DEFAULT_DEADLINE, MAX_DEADLINE};

    #[test]
    fn a_call_that_times_out_is_within_a_bucket() {
        let bucket = |seconds: f64| BUCKETS.iter().position(|end| seconds <= *end);
        // A response at the deadline comes a little after it.
        let (late, latest) = (DEFAULT_DEADLINE.as_secs_f64() + 0.1, MAX_DEADLINE.as_secs_f64());
        assert!(bucket(late).is_some() && bucket(latest).is_some());
        assert_ne!(bucket(late), bucket(DEFAULT_DEADLINE.as_secs_f64() / 2.0));
    }
}
