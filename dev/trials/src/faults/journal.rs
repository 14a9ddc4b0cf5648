//! The journal of customers' requests and responses: in memory for the verdicts, and as a file for `souk check`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::backlog::Progress;
use super::control::Control;
use super::fault::HALF_A_MINUTE;
use stack::client::Response;

const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// A refusal that the request may get.
    Refused,
    /// A refusal that it must not get.
    Wrong,
    /// No response, or one that asks to retry.
    Failed,
    /// The customer abandoned the request.
    Abandoned,
}

impl Outcome {
    fn of(response: &Result<Response>, refusals: &[&str]) -> Self {
        match response {
            Ok(response) if response.status.is_success() => Self::Ok,
            // The same request is still in progress.
            Ok(response) if response.status.as_u16() == 409 => Self::Failed,
            Ok(response) if response.status.is_client_error() && response.status.as_u16() != 499 => {
                if refusals.contains(&response.reason()) { Self::Refused } else { Self::Wrong }
            }
            Ok(_) | Err(_) => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused | Self::Wrong => "refused",
            Self::Failed | Self::Abandoned => "unknown",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) begun: Instant,
    /// `None`: it is in progress.
    pub(crate) ended: Option<Instant>,
    pub(crate) outcome: Outcome,
}

pub(crate) struct Journal {
    attempts: Mutex<Vec<Attempt>>,
    file: Mutex<BufWriter<File>>,
    written: AtomicU64,
    /// The first wrong refusal since [`Journal::take_wrong`].
    wrong: Mutex<Option<String>>,
    bought: AtomicU64,
    /// The end of the latest request that failed.
    last_failure: Mutex<Option<Instant>>,
    /// Half of all requests are abandoned within this many microseconds; 0: none.
    abandon_within: AtomicU64,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            attempts: Mutex::default(),
            file: Mutex::new(BufWriter::new(file)),
            written: AtomicU64::new(0),
            wrong: Mutex::default(),
            bought: AtomicU64::new(0),
            last_failure: Mutex::default(),
            abandon_within: AtomicU64::new(0),
        })
    }

    /// Records one request. `refusals`: the reasons for which it may be refused. A request that is dropped is abandoned.
    pub(crate) async fn watch(
        &self,
        refusals: &[&str],
        request: impl Future<Output = Result<Response>>,
    ) -> (Outcome, Result<Response>) {
        let mut recording = Recording { journal: self, at: self.begin(), outcome: Outcome::Abandoned };
        let response = match self.abandon_within.load(Ordering::Relaxed) {
            within @ 1.. if rand::random_bool(0.5) => {
                let moment = Duration::from_micros(rand::random_range(0..within));
                tokio::time::timeout(moment, request).await
            }
            _ => Ok(request.await),
        };
        let Ok(response) = response else {
            return (Outcome::Abandoned, Err(anyhow!("the customer abandoned the request")));
        };
        recording.outcome = Outcome::of(&response, refusals);
        if let (Outcome::Wrong, Ok(response)) = (recording.outcome, &response) {
            let mut wrong = self.wrong.lock().expect("the lock is not poisoned");
            wrong.get_or_insert_with(|| format!("{}: {}", response.status, response.body));
        }
        (recording.outcome, response)
    }

    fn begin(&self) -> usize {
        let mut attempts = self.attempts.lock().expect("the lock is not poisoned");
        attempts.push(Attempt { begun: Instant::now(), ended: None, outcome: Outcome::Abandoned });
        attempts.len() - 1
    }

    /// Half of all requests are abandoned, each at a random time within this one. Zero: none.
    pub(crate) fn abandon_within(&self, time: Duration) {
        self.abandon_within.store(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Writes a line of the file, about a request with an idempotency key.
    pub(crate) fn write(&self, operation: &str, key: &str, outcome: Outcome, order_id: Option<&str>) -> Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        if operation == "create" && outcome == Outcome::Ok {
            self.bought.fetch_add(1, Ordering::Relaxed);
        }
        let (attempt, outcome) = (self.written.fetch_add(1, Ordering::Relaxed), outcome.name());
        let line = json!({"attempt": attempt, "at": at, "operation": operation, "key": key, "outcome": outcome, "order_id": order_id});
        Ok(writeln!(self.file.lock().expect("the lock is not poisoned"), "{line}")?)
    }

    /// The requests that were in progress at any time between these, once all of them have ended.
    pub(crate) async fn between(&self, from: Instant, to: Instant) -> Vec<Attempt> {
        loop {
            let mut chosen: Vec<_> = {
                let attempts = self.attempts.lock().expect("the lock is not poisoned");
                let between = |it: &&Attempt| it.begun <= to && it.ended.is_none_or(|ended| ended >= from);
                attempts.iter().filter(between).copied().collect()
            };
            // Each ends by the timeout of its client.
            if chosen.iter().all(|attempt| attempt.ended.is_some()) {
                chosen.retain(|attempt| attempt.outcome != Outcome::Abandoned);
                return chosen;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How long each successful request since this time took.
    pub(crate) fn durations(&self, since: Instant) -> Vec<Duration> {
        let attempts = self.attempts.lock().expect("the lock is not poisoned");
        let succeeded = attempts.iter().filter(|it| it.begun >= since && it.outcome == Outcome::Ok);
        succeeded.filter_map(|it| Some(it.ended? - it.begun)).collect()
    }

    /// The number of purchases.
    pub(crate) fn bought(&self) -> u64 {
        self.bought.load(Ordering::Relaxed)
    }

    /// Waits for this many purchases from now on. Fails when there are none for a while.
    pub(crate) async fn buys(&self, count: u64, control: &Control) -> Result<()> {
        let (enough, mut progress) = (self.bought() + count, Progress::new(HALF_A_MINUTE));
        while self.bought() < enough {
            progress.check(self.bought(), control)?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until no request has failed for `span` from now on, but no longer than `within`.
    pub(crate) async fn nothing_fails_for(&self, span: Duration, within: Duration) {
        let begun = Instant::now();
        loop {
            let last =
                self.last_failure.lock().expect("the lock is not poisoned").map_or(begun, |last| last.max(begun));
            if last.elapsed() >= span || begun.elapsed() >= within {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) fn take_wrong(&self) -> Option<String> {
        self.wrong.lock().expect("the lock is not poisoned").take()
    }

    /// The number of all requests, and of the writes with an idempotency key.
    pub(crate) fn count(&self) -> (usize, u64) {
        (self.attempts.lock().expect("the lock is not poisoned").len(), self.written.load(Ordering::Relaxed))
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.file.lock().expect("the lock is not poisoned").flush()?)
    }
}

/// A request in progress.
struct Recording<'a> {
    journal: &'a Journal,
    at: usize,
    outcome: Outcome,
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let attempt = &mut self.journal.attempts.lock().expect("the lock is not poisoned")[self.at];
        let now = Instant::now();
        (attempt.ended, attempt.outcome) = (Some(now), self.outcome);
        if self.outcome == Outcome::Failed {
            *self.journal.last_failure.lock().expect("the lock is not poisoned") = Some(now);
        }
    }
}

#[cfg(test)]
impl Journal {
    /// A journal with these attempts and no file.
    pub(crate) fn of(attempts: Vec<Attempt>) -> Result<Self> {
        let journal = Self::create(Path::new("/dev/null"))?;
        Ok(Self { attempts: Mutex::new(attempts), ..journal })
    }
}
