//! What became of each fault, as a line on the terminal and as a row of the table in `docs/faults.md`.

use std::time::{Duration, Instant};

use super::fault::Expect;
use super::load::{Attempt, Journal, Outcome};

/// A run in which hardly anybody was served proves nothing.
const FLOOR: usize = 30;

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) attempts: usize,
    pub(crate) ok: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// From when it was healed to the end of the last request that failed. For those that heal themselves, such as a killed
    /// replica, the longest time in which requests failed.
    pub(crate) recovery: Duration,
    pub(crate) verdict: Result<(), String>,
}

/// Judges what customers saw from the injection to some seconds after it was healed.
pub(crate) fn judge(
    name: &str,
    what: &str,
    journal: &Journal,
    injected: Instant,
    healed: Instant,
    expect: Expect,
) -> Row {
    let attempts = journal.between(injected, Instant::now());
    let count = |outcome| attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
    let (ok, refused, failed) = (count(Outcome::Ok), count(Outcome::Refused), count(Outcome::Failed));
    let failures = || attempts.iter().filter(|attempt| attempt.outcome == Outcome::Failed);
    let recovery = match expect {
        Expect::ServesWithin(_) => failures().map(|it| it.ended.saturating_duration_since(healed)).max(),
        Expect::NoFailure => longest(failures()),
    };
    let recovery = recovery.unwrap_or_default();
    let after = attempts.iter().filter(|it| it.begun >= healed && it.outcome == Outcome::Ok).count();
    let verdict = if after < FLOOR {
        Err(format!("only {after} requests succeeded afterwards"))
    } else {
        match expect {
            Expect::NoFailure if failed > 0 => Err(format!("{failed} requests failed, and none should")),
            Expect::ServesWithin(limit) if recovery > limit => {
                Err(format!("requests failed until {recovery:.1?} after it was over, and {limit:?} is the limit"))
            }
            _ => Ok(()),
        }
    };
    let (name, what) = (name.to_owned(), what.to_owned());
    Row { name, what, attempts: attempts.len(), ok, refused, failed, recovery, verdict }
}

fn longest<'a>(failures: impl Iterator<Item = &'a Attempt> + Clone) -> Option<Duration> {
    let first = failures.clone().map(|it| it.begun).min()?;
    failures.map(|it| it.ended.duration_since(first)).max()
}

impl Row {
    pub(crate) fn line(&self) -> String {
        let Self { name, attempts, ok, refused, failed, recovery, .. } = self;
        let verdict =
            self.verdict.as_ref().map_or_else(|why| format!("VIOLATED: {why}"), |()| "as expected".to_owned());
        format!(
            "{name}: {attempts} attempts, {ok} ok, {refused} refused, {failed} to try again; recovered in {:.1} s; {verdict}",
            recovery.as_secs_f64()
        )
    }

    pub(crate) fn markdown(&self) -> String {
        let Self { name, what, attempts, ok, refused, failed, recovery, .. } = self;
        let verdict = self.verdict.as_ref().map_or_else(|why| format!("**violated**: {why}"), |()| "ok".to_owned());
        let recovery = recovery.as_secs_f64();
        format!("| `{name}` | {what} | {attempts} | {ok} | {refused} | {failed} | {recovery:.1} s | {verdict} |")
    }
}
