//! What customers saw: in memory for the verdicts, and as a file for `souk check`.

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
use stack::shop::Response;

const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// A definite no that there may be.
    Refused,
    /// A refusal that is wrong.
    Wrong,
    /// No answer, or one that says to try again.
    Failed,
    /// The customer left before there was an answer.
    Left,
}

impl Outcome {
    fn of(answer: &Result<Response>, refusals: &[&str]) -> Self {
        match answer {
            Ok(answer) if answer.status.is_success() => Self::Ok,
            // A twin of it is still at work.
            Ok(answer) if answer.status.as_u16() == 409 => Self::Failed,
            Ok(answer) if answer.status.is_client_error() && answer.status.as_u16() != 499 => {
                if refusals.contains(&answer.reason()) { Self::Refused } else { Self::Wrong }
            }
            Ok(_) | Err(_) => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused | Self::Wrong => "refused",
            Self::Failed | Self::Left => "unknown",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) begun: Instant,
    /// None: it is under way.
    pub(crate) ended: Option<Instant>,
    pub(crate) outcome: Outcome,
}

pub(crate) struct Journal {
    attempts: Mutex<Vec<Attempt>>,
    file: Mutex<BufWriter<File>>,
    written: AtomicU64,
    /// The first wrong answer since it was last taken.
    wrong: Mutex<Option<String>>,
    bought: AtomicU64,
    /// The end of the latest request that failed.
    last_failure: Mutex<Option<Instant>>,
    /// Half of all requests are given up in the middle: within this many microseconds. 0: none is.
    leaving: AtomicU64,
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
            leaving: AtomicU64::new(0),
        })
    }

    /// Watches one request. `refusals`: the reasons for which it may be refused. One that is dropped was left.
    pub(crate) async fn watch(
        &self,
        refusals: &[&str],
        request: impl Future<Output = Result<Response>>,
    ) -> (Outcome, Result<Response>) {
        let mut under_way = UnderWay { journal: self, at: self.begin(), outcome: Outcome::Left };
        let answer = match self.leaving.load(Ordering::Relaxed) {
            within @ 1.. if rand::random_bool(0.5) => {
                let moment = Duration::from_micros(rand::random_range(0..within));
                tokio::time::timeout(moment, request).await
            }
            _ => Ok(request.await),
        };
        let Ok(answer) = answer else {
            return (Outcome::Left, Err(anyhow!("the customer did not wait for the answer")));
        };
        under_way.outcome = Outcome::of(&answer, refusals);
        if let (Outcome::Wrong, Ok(answer)) = (under_way.outcome, &answer) {
            let mut wrong = self.wrong.lock().expect("no panics");
            wrong.get_or_insert_with(|| format!("{}: {}", answer.status, answer.body));
        }
        (under_way.outcome, answer)
    }

    fn begin(&self) -> usize {
        let mut attempts = self.attempts.lock().expect("no panics");
        attempts.push(Attempt { begun: Instant::now(), ended: None, outcome: Outcome::Left });
        attempts.len() - 1
    }

    /// Half of all requests are given up, each at a random moment until then. Zero: none is any more.
    pub(crate) fn leave_within(&self, moment: Duration) {
        self.leaving.store(moment.as_micros() as u64, Ordering::Relaxed);
    }

    /// A line of the file, about something that was asked for under a key.
    pub(crate) fn write(&self, kind: &str, key: &str, outcome: Outcome, order_id: Option<&str>) -> Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        if kind == "create" && outcome == Outcome::Ok {
            self.bought.fetch_add(1, Ordering::Relaxed);
        }
        let (attempt, outcome) = (self.written.fetch_add(1, Ordering::Relaxed), outcome.name());
        let line =
            json!({"attempt": attempt, "at": at, "kind": kind, "key": key, "outcome": outcome, "order_id": order_id});
        Ok(writeln!(self.file.lock().expect("no panics"), "{line}")?)
    }

    /// Those that were under way at any time in between, once all of them have ended.
    pub(crate) async fn between(&self, from: Instant, to: Instant) -> Vec<Attempt> {
        loop {
            let mut chosen: Vec<_> = {
                let attempts = self.attempts.lock().expect("no panics");
                let between = |it: &&Attempt| it.begun <= to && it.ended.is_none_or(|ended| ended >= from);
                attempts.iter().filter(between).copied().collect()
            };
            // Each ends by the patience of its client.
            if chosen.iter().all(|attempt| attempt.ended.is_some()) {
                chosen.retain(|attempt| attempt.outcome != Outcome::Left);
                return chosen;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How long each request took that began since a moment and was answered.
    pub(crate) fn durations(&self, since: Instant) -> Vec<Duration> {
        let attempts = self.attempts.lock().expect("no panics");
        let answered = attempts.iter().filter(|it| it.begun >= since && it.outcome == Outcome::Ok);
        answered.filter_map(|it| Some(it.ended? - it.begun)).collect()
    }

    /// How often customers bought something.
    pub(crate) fn bought(&self) -> u64 {
        self.bought.load(Ordering::Relaxed)
    }

    /// Waits until customers have bought so often from now on. Fails when purchases cease.
    pub(crate) async fn buys(&self, count: u64, control: &Control) -> Result<()> {
        let (enough, mut progress) = (self.bought() + count, Progress::new(HALF_A_MINUTE));
        while self.bought() < enough {
            progress.check(self.bought(), control)?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until nothing has failed for that long from now on, and `within` a while at most.
    pub(crate) async fn nothing_fails_for(&self, span: Duration, within: Duration) {
        let begun = Instant::now();
        loop {
            let last = self.last_failure.lock().expect("no panics").map_or(begun, |last| last.max(begun));
            if last.elapsed() >= span || begun.elapsed() >= within {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) fn take_wrong(&self) -> Option<String> {
        self.wrong.lock().expect("no panics").take()
    }

    /// All requests, and those of them that place, cancel or give back.
    pub(crate) fn count(&self) -> (usize, u64) {
        (self.attempts.lock().expect("no panics").len(), self.written.load(Ordering::Relaxed))
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.file.lock().expect("no panics").flush()?)
    }
}

struct UnderWay<'a> {
    journal: &'a Journal,
    at: usize,
    outcome: Outcome,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let attempt = &mut self.journal.attempts.lock().expect("no panics")[self.at];
        let now = Instant::now();
        (attempt.ended, attempt.outcome) = (Some(now), self.outcome);
        if self.outcome == Outcome::Failed {
            *self.journal.last_failure.lock().expect("no panics") = Some(now);
        }
    }
}

#[cfg(test)]
impl Journal {
    /// One in which this has happened. Its file is no one's.
    pub(crate) fn of(attempts: Vec<Attempt>) -> Result<Self> {
        let journal = Self::create(Path::new("/dev/null"))?;
        Ok(Self { attempts: Mutex::new(attempts), ..journal })
    }
}
