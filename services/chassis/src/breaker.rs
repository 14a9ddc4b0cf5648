//! A peer that only fails is left alone for a moment: nobody waits for what is known to be away, and what comes back is not
//! met by everybody at once. One call at a time then finds out whether it is back.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, CircuitState, FnClassifier};

use crate::metrics::{self, Of};

pub use tower_resilience_circuitbreaker::{CircuitBreaker, CircuitBreakerError};

/// How many failures in a row it takes.
const FAILURES: usize = 10;
const LEFT_ALONE: Duration = Duration::from_secs(1);

static OPEN: LazyLock<Family<Of, Gauge>> =
    LazyLock::new(|| metrics::register("breaker_open", "Whether a peer is being left alone", Family::default()));
static REFUSED: LazyLock<Family<Of, Counter>> = LazyLock::new(|| {
    metrics::register("breaker_refused", "Calls that were not made, as their peer was left alone", Family::default())
});

/// What is a failure of a peer.
pub type Judge<T, E> = fn(&Result<T, E>) -> bool;

pub type Guarded<S, T, E> = CircuitBreaker<S, FnClassifier<Judge<T, E>>>;

/// Guards the calls to `peer`. All clones share what is known of it.
pub fn guard<S, T, E>(peer: &'static str, service: S, has_failed: Judge<T, E>) -> Guarded<S, T, E>
where
    T: 'static,
    E: 'static,
{
    let layer = CircuitBreakerLayer::builder()
        .consecutive_failures(FAILURES)
        .wait_duration_in_open(LEFT_ALONE)
        .permitted_calls_in_half_open(1)
        .failure_classifier(has_failed)
        .on_state_transition(move |from, to| {
            OPEN.get_or_create(&Of::new(peer)).set(i64::from(to != CircuitState::Closed));
            if from == CircuitState::Closed {
                tracing::warn!(peer, "it fails each time, and is left alone");
            } else if to == CircuitState::Closed {
                tracing::info!(peer, "it is back");
            }
        })
        .on_call_rejected(move || {
            REFUSED.get_or_create(&Of::new(peer)).inc();
        });
    layer.build().expect("the numbers make sense").layer_fn(service)
}
