//! What became of each fault, as a line on the terminal and as a row of the table in `docs/faults.md`.

use std::time::{Duration, Instant};

use super::fault::{Expect, Pace};
use super::load::{Attempt, Journal, Outcome};

/// A run in which hardly anybody was served proves nothing.
const FLOOR: usize = 30;
/// How long after it was over the orders placed before that may take to settle.
pub(super) const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// Failures with less than this between them are one stretch.
const APART: Duration = Duration::from_millis(500);

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) attempts: usize,
    pub(crate) ok: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// The longest time in which requests failed.
    pub(crate) stretch: Duration,
    /// From when it was over to the end of the last request that failed.
    pub(crate) recovery: Duration,
    /// From when it was over until everything placed before had settled and was paid. None: not in time.
    pub(crate) settled: Option<Duration>,
    pub(crate) verdict: Result<(), String>,
}

/// What was tried, and when.
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) expect: Expect,
    pub(crate) injected: Instant,
    pub(crate) healed: Instant,
    pub(crate) settled: Option<Duration>,
}

/// Judges what customers saw from the injection to some seconds after it was over.
pub(crate) fn judge(trial: Trial, journal: &Journal, pace: Pace) -> Row {
    let Trial { name, what, expect, injected, healed, settled } = trial;
    let attempts = journal.between(injected, Instant::now());
    let count = |outcome| attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
    let (ok, refused, failed) = (count(Outcome::Ok), count(Outcome::Refused), count(Outcome::Failed));
    let failures: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Failed).copied().collect();
    let recovery = failures.iter().map(|it| it.ended.saturating_duration_since(healed)).max().unwrap_or_default();
    let stretch = longest_stretch(failures);
    let after = attempts.iter().filter(|it| it.begun >= healed && it.outcome == Outcome::Ok).count();
    let verdict = match expect {
        _ if after < FLOOR => Err(format!("only {after} requests succeeded afterwards")),
        _ if settled.is_none() => Err("what was placed before it was over did not settle in time".to_owned()),
        Expect::NoFailure if failed > 0 => Err(format!("{failed} requests failed, and none should")),
        Expect::Stretch(limit) if stretch > limit * pace.slack() => {
            Err(format!("requests failed for {stretch:.1?} at a stretch, and {limit:?} is the limit"))
        }
        Expect::ServesWithin(limit) if recovery > limit * pace.slack() => {
            Err(format!("requests failed until {recovery:.1?} after it was over, and {limit:?} is the limit"))
        }
        _ => Ok(()),
    };
    Row { name, what, attempts: attempts.len(), ok, refused, failed, stretch, recovery, settled, verdict }
}

fn longest_stretch(mut failures: Vec<Attempt>) -> Duration {
    failures.sort_unstable_by_key(|failure| failure.begun);
    let (mut longest, mut stretch) = (Duration::ZERO, None::<(Instant, Instant)>);
    for failure in failures {
        let (begun, ended) = match stretch {
            Some((begun, ended)) if failure.begun <= ended + APART => (begun, ended.max(failure.ended)),
            _ => (failure.begun, failure.ended),
        };
        stretch = Some((begun, ended));
        longest = longest.max(ended - begun);
    }
    longest
}

impl Row {
    pub(crate) fn line(&self) -> String {
        let Self { name, attempts, ok, refused, failed, .. } = self;
        let verdict =
            self.verdict.as_ref().map_or_else(|why| format!("VIOLATED: {why}"), |()| "as expected".to_owned());
        let (stretch, recovery) = (self.stretch.as_secs_f64(), self.recovery.as_secs_f64());
        format!(
            "{name}: {attempts} attempts, {ok} ok, {refused} refused, {failed} to try again; failing for {stretch:.1} s, \
             until {recovery:.1} s after; settled after {}; {verdict}",
            self.settled_after()
        )
    }

    pub(crate) fn markdown(&self) -> String {
        let Self { name, what, attempts, ok, refused, failed, .. } = self;
        let verdict = self.verdict.as_ref().map_or_else(|why| format!("**violated**: {why}"), |()| "ok".to_owned());
        let (stretch, recovery) = (self.stretch.as_secs_f64(), self.recovery.as_secs_f64());
        format!(
            "| `{name}` | {what} | {attempts} | {ok} | {refused} | {failed} | {stretch:.1} s | {recovery:.1} s | {} | \
             {verdict} |",
            self.settled_after()
        )
    }

    fn settled_after(&self) -> String {
        self.settled.map_or_else(|| "-".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_follow_each_other_are_one_stretch() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let failure = |begun, ended| Attempt { begun: at(begun), ended: at(ended), outcome: Outcome::Failed };
        assert_eq!(longest_stretch(vec![]), Duration::ZERO);
        let failures = vec![failure(5_000, 5_100), failure(300, 400), failure(0, 700), failure(1_000, 1_250)];
        assert_eq!(longest_stretch(failures), Duration::from_millis(1_250));
    }
}
