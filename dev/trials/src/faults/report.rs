//! The result of each trial, as a line on the terminal and as a row of the table in `docs/faults.md`.

use std::time::{Duration, Instant};

use super::control::Control;
use super::fault::Expect;
use super::journal::{Attempt, Journal, Outcome};
use super::machine::Machine;

/// A trial in which hardly any request succeeded proves nothing: this many must per second, which the slowest machine serves.
const FLOOR: u64 = 1;
/// Failures with less than this between them are one stretch.
pub(crate) const APART: Duration = Duration::from_secs(1);

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) attempts: usize,
    pub(crate) ok: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    /// The longest time in which requests failed.
    pub(crate) stretch: Duration,
    /// From the end of the fault to the end of the last request that failed.
    pub(crate) recovery: Duration,
    /// From the end of the fault until every order of before was settled. `None`: that did not happen.
    pub(crate) settled: Option<Duration>,
    /// As expected, perhaps with a note; or what was not.
    pub(crate) verdict: Result<String, String>,
}

/// One trial: its faults, times and outcome.
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) expect: Expect,
    pub(crate) injected: Instant,
    pub(crate) healed: Instant,
    pub(crate) settled: Option<Duration>,
    /// The time of the last purchase.
    pub(crate) until: Instant,
    /// Anything else that went wrong, or a note.
    pub(crate) outcome: Result<String, String>,
}

/// Judges the requests from the injection to the last purchase.
pub(crate) async fn judge(trial: Trial, journal: &Journal, control: &Control, machine: &Machine) -> Row {
    let Trial { name, what, expect, injected, healed, settled, until, outcome } = trial;
    let attempts = journal.between(injected, until).await;
    let count = |outcome| attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
    let (ok, failed) = (count(Outcome::Ok), count(Outcome::Failed));
    let refused = count(Outcome::Refused) + count(Outcome::Wrong);
    let mut failures: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Failed).copied().collect();
    failures.retain(|it| !control.excuses(it.begun, it.ended.unwrap_or(it.begun)));
    let (counted, ends) = (failures.len(), failures.iter().filter_map(|it| it.ended));
    let recovery = ends.map(|ended| ended.saturating_duration_since(healed)).max().unwrap_or_default();
    let stretch = longest_stretch(failures);
    let served = |from: Instant, to: Instant| {
        let served = attempts.iter().filter(|it| it.outcome == Outcome::Ok && it.begun >= from && it.begun <= to);
        let time = (to - from).saturating_sub(control.stalled(from, to));
        served.count() as u64 >= FLOOR * time.as_secs()
    };
    let slack = machine.slack();
    let verdict = match expect {
        _ if outcome.is_err() => outcome,
        _ if count(Outcome::Wrong) > 0 => Err(format!("a wrong refusal: {}", journal.take_wrong().unwrap_or_default())),
        _ if !served(healed, until) => Err("hardly any request succeeded afterwards".to_owned()),
        Expect::NoFailure | Expect::Stretch(_) if !served(injected, healed) => {
            Err("hardly any request succeeded meanwhile".to_owned())
        }
        Expect::NoFailure if counted > 0 => Err(format!("{counted} requests failed; none may")),
        Expect::Stretch(limit) if stretch > limit + slack => {
            Err(format!("requests failed for {stretch:.1?} at a stretch; the limit is {:.1?}", limit + slack))
        }
        Expect::ServesWithin(limit) if recovery > limit + slack => Err(format!(
            "requests failed until {recovery:.1?} after the end of the fault; the limit is {:.1?}",
            limit + slack
        )),
        _ => outcome,
    };
    let stalled = control.stalled(injected, until);
    let note = format!("; the machine stalled for {stalled:.1?}, and {} failures do not count", failed - counted);
    let verdict = verdict.map(|notes| if stalled.is_zero() { notes } else { notes + &note });
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
            "{name}: {attempts} requests, {ok} ok, {refused} refused, {failed} failed; failing for {stretch:.1} s, \
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

    /// The verdict on four successful requests per second for 20 s, and these failures (`begun`, `ended` in milliseconds), of a
    /// fault that ends after 10 s.
    async fn verdict(expect: Expect, failures: &[(u64, u64)], stalls: &[(u64, u64)]) -> Result<String, String> {
        let injected = Instant::now();
        let at = |millis| injected + Duration::from_millis(millis);
        let attempt = |(begun, ended), outcome| Attempt { begun: at(begun), ended: Some(at(ended)), outcome };
        let mut attempts: Vec<_> = (0..80).map(|it| attempt((it * 250, it * 250 + 5), Outcome::Ok)).collect();
        attempts.extend(failures.iter().map(|it| attempt(*it, Outcome::Failed)));
        let control = Control::that_saw(stalls.iter().map(|it| (at(it.0), at(it.1))).collect());
        let trial = Trial {
            name: String::new(),
            what: String::new(),
            expect,
            injected,
            healed: at(10_000),
            settled: Some(Duration::ZERO),
            until: at(20_000),
            outcome: Ok(String::new()),
        };
        let machine = Machine::of(4.0, Duration::from_millis(400));
        judge(trial, &Journal::of(attempts).expect("a journal"), &control, &machine).await.verdict
    }

    #[tokio::test]
    async fn failures_break_a_limit_unless_the_machine_stalled() {
        let second = Duration::from_secs(1);
        for (expect, failures, stalls, is_broken) in [
            (Expect::NoFailure, &[][..], &[][..], false),
            (Expect::NoFailure, &[(3_000, 3_010)], &[], true),
            (Expect::NoFailure, &[(3_000, 3_010)], &[(2_000, 2_600)], false),
            (Expect::NoFailure, &[(3_000, 3_010), (9_000, 9_010)], &[(2_000, 2_600)], true),
            (Expect::Stretch(second), &[(3_000, 3_900), (4_000, 4_390)], &[], false),
            (Expect::Stretch(second), &[(3_000, 3_900), (4_000, 4_410)], &[], true),
            (Expect::Stretch(second), &[(3_000, 3_900), (4_000, 4_410)], &[(3_500, 4_100)], false),
            (Expect::ServesWithin(second), &[(1_000, 11_390)], &[], false),
            (Expect::ServesWithin(second), &[(1_000, 11_410)], &[], true),
        ] {
            let verdict = verdict(expect, failures, stalls).await;
            assert_eq!(verdict.is_err(), is_broken, "{expect:?} {failures:?} {stalls:?}: {verdict:?}");
        }
    }

    #[tokio::test]
    async fn a_trial_without_successful_requests_fails_unless_the_machine_stalled() {
        let without_requests = |stalls| async move {
            let (injected, control) = (Instant::now(), Control::that_saw(stalls));
            let healed = injected + Duration::from_secs(10);
            let trial = Trial {
                name: String::new(),
                what: String::new(),
                expect: Expect::NoFailure,
                injected,
                healed,
                settled: Some(Duration::ZERO),
                until: healed,
                outcome: Ok(String::new()),
            };
            let machine = Machine::of(4.0, Duration::ZERO);
            judge(trial, &Journal::of(vec![]).expect("a journal"), &control, &machine).await.verdict
        };
        assert_eq!(without_requests(vec![]).await, Err("hardly any request succeeded meanwhile".to_owned()));
        let now = Instant::now();
        without_requests(vec![(now, now + Duration::from_secs(20))]).await.expect("the machine stalled");
    }
}
