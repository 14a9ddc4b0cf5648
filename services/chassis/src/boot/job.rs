//! Background work: a step is a function that does one unit and says whether it did; the loop is here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::boot::metrics;
use crate::event::outbox::Wake;
use crate::rpc::error::Unexpected;

/// Whether there was anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    Something,
    Nothing,
}

impl Did {
    /// From how many it was done to.
    pub fn any(count: u64) -> Self {
        if count == 0 { Self::Nothing } else { Self::Something }
    }
}

type Unit = Pin<Box<dyn Future<Output = Result<Did, Unexpected>> + Send>>;

const SLOWEST_RETRY: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Step {
    pub name: &'static str,
    /// How long it rests when there was nothing to do and nobody woke it.
    pub every: Duration,
    /// How many do it at once. Each must claim its unit, so that no two work on the same.
    pub workers: usize,
    pub wake: Wake,
    unit: Arc<dyn Fn() -> Unit + Send + Sync>,
}

impl Step {
    pub fn new<F, U>(name: &'static str, every: Duration, unit: F) -> Self
    where
        F: Fn() -> U + Send + Sync + 'static,
        U: Future<Output = Result<Did, Unexpected>> + Send + 'static,
    {
        Self { name, every, workers: 1, wake: Wake::default(), unit: Arc::new(move || Box::pin(unit())) }
    }

    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Whoever holds a clone of `wake` can tell it that there is work.
    pub fn woken_by(self, wake: Wake) -> Self {
        Self { wake, ..self }
    }

    /// Does units until there is nothing to do, for tests.
    pub async fn drain(&self) -> Result<(), Unexpected> {
        while (self.unit)().await? == Did::Something {}
        Ok(())
    }

    /// One worker's loop. A unit that has begun is finished before it stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let rest = match (self.unit)().await {
                Ok(Did::Something) => {
                    failures = 0;
                    continue;
                }
                Ok(Did::Nothing) => {
                    failures = 0;
                    self.every
                }
                Err(error) => {
                    failures += 1;
                    metrics::count_step_failure(self.name);
                    tracing::error!(step = self.name, %error, failures, "a background step failed; it is tried again");
                    SLOWEST_RETRY.min(Duration::from_millis(50 << u32::min(failures, 7)))
                }
            };
            tokio::select! {
                () = self.wake.woken(), if failures == 0 => {}
                () = tokio::time::sleep(rest) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
