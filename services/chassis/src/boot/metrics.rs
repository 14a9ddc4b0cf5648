//! What Prometheus reads. One registry per process; a metric is made where it is counted, once.

use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(Registry::with_prefix("souk")));

/// Adds a metric, `souk_<name>`; keep what it returns.
pub fn register<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    let mut registry = REGISTRY.lock().expect("nothing panics while it holds this lock");
    registry.register(name, help, metric.clone());
    metric
}

/// In the text format of OpenMetrics.
pub fn render() -> String {
    let mut page = String::new();
    let registry = REGISTRY.lock().expect("nothing panics while it holds this lock");
    text::encode(&mut page, &registry).expect("a string takes whatever is written");
    page
}

/// The one label that most counters need: whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Of {
    pub of: String,
}

impl Of {
    pub fn new(of: impl Into<String>) -> Self {
        Self { of: of.into() }
    }
}

static UNEXPECTED: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| register("unexpected", "Calls that failed for reasons of ours, by domain", Family::default()));
static STEP_FAILURES: LazyLock<Family<Of, Counter>> =
    LazyLock::new(|| register("step_failures", "Background steps that failed and are tried again", Family::default()));

pub(crate) fn count_unexpected(domain: &str) {
    UNEXPECTED.get_or_create(&Of::new(domain)).inc();
}

pub(crate) fn count_step_failure(step: &str) {
    STEP_FAILURES.get_or_create(&Of::new(step)).inc();
}
