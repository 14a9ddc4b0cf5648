//! One call: to which replica it goes, how long it may take, and what its outcome says about the replica.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::body::Body;
use tower::Service;

use crate::rpc::breaker::CircuitOpen;
use crate::rpc::client::is_our_timer;
use crate::rpc::client::replicas::{Outcome, Replicas};
use crate::rpc::run_to_end::{DEFAULT_DEADLINE, MIN_TIME_LEFT, grpc_timeout};

/// How often a lost call is made again, at most.
pub(super) const RETRIES: usize = 2;
/// How long a call waits until the addresses of the peer are known.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);
/// The header has at most eight digits.
const LONGEST_TIMEOUT: u128 = 99_999_999;

/// Another service: all of its replicas.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Replicas>);

/// Why a peer did not respond.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error(transparent)]
    CircuitOpen(#[from] CircuitOpen),
    #[error("the name of the peer has no address")]
    Unresolved,
    #[error("there is no time left for a call")]
    NoTimeLeft,
    #[error("the peer did not respond before the deadline")]
    TimedOut,
    #[error("the peer cannot be reached")]
    Transport(#[source] tonic::transport::Error),
}

/// The replicas to which the attempts of one call were sent, in the extensions of its requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Route {
    visited: Arc<Mutex<Vec<SocketAddr>>>,
    /// How many attempts may follow.
    retries: usize,
}

impl Route {
    /// For the next attempt.
    pub(super) fn with_retries(&self, retries: usize) -> Self {
        Self { visited: self.visited.clone(), retries }
    }

    fn visited(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.visited.lock().expect("nothing panics while it holds this lock")
    }
}

impl Peer {
    pub(super) fn new(replicas: Arc<Replicas>) -> Self {
        Self(replicas)
    }

    #[cfg(test)]
    pub(super) fn replicas(&self) -> &Replicas {
        &self.0
    }
}

impl Service<Request<Body>> for Peer {
    type Response = Response<Body>;
    type Error = PeerError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, PeerError>> + Send>>;

    /// Always ready: waiting for the channel is part of the call, and bounded by its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call(self.0.clone(), request))
    }
}

async fn call(replicas: Arc<Replicas>, mut request: Request<Body>) -> Result<Response<Body>, PeerError> {
    let deadline = Instant::now() + grpc_timeout(request.headers()).unwrap_or(DEFAULT_DEADLINE);
    let route = request.extensions_mut().remove::<Route>().unwrap_or_default();
    let time_left = || deadline.saturating_duration_since(Instant::now());
    if time_left() < MIN_TIME_LEFT {
        return Err(PeerError::NoTimeLeft);
    }
    let known = timeout(RESOLVED_WITHIN.min(time_left()), replicas.known()).await;
    let all = known.map_err(|_| PeerError::Unresolved)?;
    let visited = route.visited().clone();
    let others = all.iter().filter(|replica| !visited.contains(&replica.address)).count();
    // A replica that hangs must leave time for the others.
    let share = time_left() / others.clamp(1, route.retries + 1) as u32;
    let (replica, attempt) = replicas.pick(&all, &visited, share)?;
    route.visited().push(replica.address);
    let header = format!("{}u", share.as_micros().min(LONGEST_TIMEOUT));
    request.headers_mut().insert("grpc-timeout", HeaderValue::try_from(header).expect("digits and a letter"));
    // tonic's own timer starts only when there is a connection.
    let response = timeout(share, replica.call(request)).await.map_err(|_| PeerError::TimedOut);
    let response = response.and_then(|response| response.map_err(PeerError::Transport));
    let outcome = match &response {
        Err(PeerError::Transport(error)) if !is_our_timer(error) => Outcome::Failed,
        Err(_) => Outcome::TimedOut,
        Ok(response) => match code(response) {
            Code::Unavailable => Outcome::Failed,
            // The peer enforces the deadline that we passed on.
            Code::DeadlineExceeded => Outcome::TimedOut,
            _ => Outcome::Responded,
        },
    };
    replicas.record(&replica, attempt, outcome);
    response
}

/// The code of an error is in the headers; a success has none there.
fn code(response: &Response<Body>) -> Code {
    Code::from_bytes(response.headers().get("grpc-status").map_or(b"0", |it| it.as_bytes()))
}
