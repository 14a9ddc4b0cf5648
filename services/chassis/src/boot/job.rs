//! Background work: a job is a function that does one unit of work and returns when the next one is due. This is its loop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::boot::metrics;
use crate::boot::wake::Wake;
use crate::rpc::error::Unexpected;

/// When the next unit of a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There may be more to do.
    AtOnce,
    /// Nothing is left to do, or it has to wait.
    AfterPause,
}

impl Next {
    pub fn at_once_if(more: bool) -> Self {
        if more { Self::AtOnce } else { Self::AfterPause }
    }
}

type Unit = Pin<Box<dyn Future<Output = Result<Next, Unexpected>> + Send>>;

const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Job {
    pub name: &'static str,
    /// The pause before a unit that is not due at once, unless `wake` ends it earlier.
    pub every: Duration,
    /// How many loops run it at once. Each unit must claim its work, so that no two do the same.
    pub workers: usize,
    pub wake: Wake,
    unit: Arc<dyn Fn() -> Unit + Send + Sync>,
}

impl Job {
    /// Each unit gets a clone of `service`, which is usually an `Arc`.
    pub fn new<S, F, U>(name: &'static str, every: Duration, service: &S, unit: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(S) -> U + Send + Sync + 'static,
        U: Future<Output = Result<Next, Unexpected>> + Send + 'static,
    {
        let service = service.clone();
        let unit = Arc::new(move || -> Unit { Box::pin(unit(service.clone())) });
        Self { name, every, workers: 1, wake: Wake::default(), unit }
    }

    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Any holder of a clone of `wake` can start the next unit at once.
    pub fn woken_by(self, wake: Wake) -> Self {
        Self { wake, ..self }
    }

    /// Runs units until the next one is due after a pause, for tests.
    pub async fn drain(&self) -> Result<(), Unexpected> {
        while (self.unit)().await? == Next::AtOnce {}
        Ok(())
    }

    /// One worker's loop. A unit that has started is finished before the loop stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (backoff, mut failures) = (Backoff::new(MIN_BACKOFF, MAX_BACKOFF), 0);
        while !stop.is_cancelled() {
            let pause = match (self.unit)().await {
                Ok(Next::AtOnce) => {
                    failures = 0;
                    continue;
                }
                Ok(Next::AfterPause) => {
                    failures = 0;
                    self.every
                }
                Err(error) => {
                    failures += 1;
                    metrics::count_job_failure(self.name);
                    tracing::error!(job = self.name, %error, failures, "a job failed; it is retried");
                    backoff.after(failures)
                }
            };
            tokio::select! {
                () = self.wake.woken(), if failures == 0 => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
