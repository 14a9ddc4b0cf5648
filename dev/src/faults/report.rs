//! What became of each fault, as a line on the terminal and as a row of the table in `docs/faults.md`.

use std::time::{Duration, Instant};

use super::fault::{Expect, Pace};
use super::journal::{Attempt, Journal, Outcome};

/// A run in which hardly anybody was served proves nothing: a quarter at least as many requests must succeed as purchases are
/// wanted, of which each comes with a look at something.
const FLOOR: f64 = 0.25;
/// Failures with less than this between them are one stretch.
const APART: Duration = Duration::from_secs(1);

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
    /// All is well, and perhaps a note; or what is not.
    pub(crate) verdict: Result<String, String>,
}

/// What was tried, and when.
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) expect: Expect,
    pub(crate) injected: Instant,
    pub(crate) healed: Instant,
    pub(crate) settled: Option<Duration>,
    /// Purchases a second that are wanted meanwhile.
    pub(crate) rate: f64,
    /// What else was seen of it.
    pub(crate) outcome: Result<String, String>,
}

/// Judges what customers saw from the injection until now.
pub(crate) async fn judge(trial: Trial, journal: &Journal, pace: Pace) -> Row {
    let Trial { name, what, expect, injected, healed, settled, rate, outcome } = trial;
    let until = Instant::now();
    let attempts = journal.between(injected, until).await;
    let count = |outcome| attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
    let (ok, failed) = (count(Outcome::Ok), count(Outcome::Failed));
    let refused = count(Outcome::Refused) + count(Outcome::Wrong);
    let failures: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Failed).copied().collect();
    let ends = failures.iter().filter_map(|it| it.ended);
    let recovery = ends.map(|ended| ended.saturating_duration_since(healed)).max().unwrap_or_default();
    let stretch = longest_stretch(failures);
    let served = |from: Instant, to: Instant| {
        let served = attempts.iter().filter(|it| it.outcome == Outcome::Ok && it.begun >= from && it.begun <= to);
        served.count() as f64 >= FLOOR * rate * (to - from).as_secs_f64()
    };
    let verdict = match expect {
        _ if outcome.is_err() => outcome,
        _ if count(Outcome::Wrong) > 0 => Err(format!("a wrong answer: {}", journal.take_wrong().unwrap_or_default())),
        _ if !served(healed, until) => Err("hardly anybody was served afterwards".to_owned()),
        Expect::NoFailure | Expect::Stretch(_) if !served(injected, healed) => {
            Err("hardly anybody was served meanwhile".to_owned())
        }
        _ if settled.is_none() => Err("what was placed before it was over did not settle in time".to_owned()),
        Expect::NoFailure if failed > 0 => Err(format!("{failed} requests failed, and none should")),
        Expect::Stretch(limit) if stretch > limit * pace.slack() => {
            Err(format!("requests failed for {stretch:.1?} at a stretch, and {limit:?} is the limit"))
        }
        Expect::ServesWithin(limit) if recovery > limit * pace.slack() => {
            Err(format!("requests failed until {recovery:.1?} after it was over, and {limit:?} is the limit"))
        }
        _ => outcome,
    };
    Row { name, what, attempts: attempts.len(), ok, refused, failed, stretch, recovery, settled, verdict }
}

fn longest_stretch(mut failures: Vec<Attempt>) -> Duration {
    failures.sort_unstable_by_key(|failure| failure.begun);
    let (mut longest, mut stretch) = (Duration::ZERO, None::<(Instant, Instant)>);
    for failure in failures {
        let its_end = failure.ended.unwrap_or(failure.begun);
        let (begun, ended) = match stretch {
            Some((begun, ended)) if failure.begun <= ended + APART => (begun, ended.max(its_end)),
            _ => (failure.begun, its_end),
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
            self.verdict.as_ref().map_or_else(|why| format!("VIOLATED: {why}"), |note| format!("as expected{note}"));
        let (stretch, recovery) = (self.stretch.as_secs_f64(), self.recovery.as_secs_f64());
        format!(
            "{name}: {attempts} attempts, {ok} ok, {refused} refused, {failed} to try again; failing for {stretch:.1} s, \
             until {recovery:.1} s after; settled after {}; {verdict}",
            self.settled_after()
        )
    }

    pub(crate) fn markdown(&self) -> String {
        let Self { name, what, attempts, ok, refused, failed, .. } = self;
        let verdict =
            self.verdict.as_ref().map_or_else(|why| format!("**violated**: {why}"), |note| format!("ok{note}"));
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
        let failure = |begun, ended| Attempt { begun: at(begun), ended: Some(at(ended)), outcome: Outcome::Failed };
        assert_eq!(longest_stretch(vec![]), Duration::ZERO);
        let failures = vec![failure(5_000, 5_100), failure(300, 400), failure(0, 700), failure(1_600, 1_850)];
        assert_eq!(longest_stretch(failures), Duration::from_millis(1_850));
    }
}
