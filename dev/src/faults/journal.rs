//! What customers saw: in memory for the verdicts, and as a file for `souk check`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::shop::Answer;

/// About as long as most requests take.
const LEFT_WITHIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// A definite no that there may be.
    Refused,
    /// A definite no that nobody should have got.
    Wrong,
    /// No answer, or one that says to try again.
    Failed,
    /// The customer left before there was an answer.
    Left,
}

impl Outcome {
    fn of(answer: &Result<Answer>, refusals: &[&str]) -> Self {
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
    /// The first wrong answer since somebody asked.
    wrong: Mutex<Option<String>>,
    /// Half of all requests are given up in the middle.
    pub(crate) leaving: AtomicBool,
    /// Customers buy at half the rate.
    pub(crate) calm: AtomicBool,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            attempts: Mutex::default(),
            file: Mutex::new(BufWriter::new(file)),
            written: AtomicU64::new(0),
            wrong: Mutex::default(),
            leaving: AtomicBool::new(false),
            calm: AtomicBool::new(false),
        })
    }

    /// Watches one request. `refusals`: the reasons for which it may be refused. One that is dropped was left.
    pub(crate) async fn watch(
        &self,
        refusals: &[&str],
        request: impl Future<Output = Result<Answer>>,
    ) -> (Outcome, Result<Answer>) {
        let mut under_way = UnderWay { journal: self, at: self.begin(), outcome: Outcome::Left };
        let answer = if self.leaving.load(Ordering::Relaxed) && rand::random_bool(0.5) {
            let moment = LEFT_WITHIN.mul_f64(rand::random_range(0.0..1.0));
            tokio::time::timeout(moment, request).await
        } else {
            Ok(request.await)
        };
        let Ok(answer) = answer else { return (Outcome::Left, Err(anyhow!("nobody waited for the answer"))) };
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

    /// A line of the file, about something that was asked for under a key.
    pub(crate) fn write(&self, kind: &str, key: &str, outcome: Outcome, order_id: Option<&str>) -> Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
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
        (attempt.ended, attempt.outcome) = (Some(Instant::now()), self.outcome);
    }
}
