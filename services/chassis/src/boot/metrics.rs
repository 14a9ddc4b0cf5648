//! Metrics for Prometheus. There is one registry per process; a metric is registered once, in the module that updates it.

use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(Registry::with_prefix("souk")));

/// Registers the metric `souk_<name>`.
pub fn register<M: Metric + Clone>(name: &str, help: &str, metric: M) -> M {
    let mut registry = REGISTRY.lock().expect("nothing panics while it holds this lock");
    registry.register(name, help, metric.clone());
    metric
}

/// The page of all metrics, in the text format of OpenMetrics.
pub fn render() -> String {
    let mut page = String::new();
    let registry = REGISTRY.lock().expect("nothing panics while it holds this lock");
    text::encode(&mut page, &registry).expect("writing to a String cannot fail");
    page
}

/// Label sets with one label.
macro_rules! labels {
    ($($name:ident { $label:ident })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            pub $label: String,
        }

        impl $name {
            pub fn new($label: impl Into<String>) -> Self {
                Self { $label: $label.into() }
            }
        }
    )*};
}

labels! {
    ByConsumer { consumer }
    ByDomain { domain }
    ByJob { job }
    ByOutcome { outcome }
    ByPeer { peer }
    ByProblem { problem }
    ByReason { reason }
    ByRole { role }
    ByRpc { rpc }
    ByService { service }
}

static UNEXPECTED: LazyLock<Family<ByDomain, Counter>> = LazyLock::new(|| {
    register("unexpected", "Calls that failed for an unexpected reason, by domain", Family::default())
});
static JOB_FAILURES: LazyLock<Family<ByJob, Counter>> =
    LazyLock::new(|| register("job_failures", "Failed runs of a job, which are retried", Family::default()));

pub(crate) fn count_unexpected(domain: &str) {
    UNEXPECTED.get_or_create(&ByDomain::new(domain)).inc();
}

pub(crate) fn count_job_failure(job: &str) {
    JOB_FAILURES.get_or_create(&ByJob::new(job)).inc();
}
