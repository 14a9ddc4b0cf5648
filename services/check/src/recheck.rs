//! Repeats a check that finds violations: services consume an event at different times, so only a violation that every check
//! finds is reported.

use std::time::Duration;

use chassis::check::Finding;

use crate::{Error, Sources};

/// How often a check is run at most.
const CHECKS: u32 = 4;
pub(crate) const PAUSE: Duration = Duration::from_secs(2);

impl Sources {
    /// `check` must always return the same findings in the same order.
    pub(crate) async fn recheck(
        &self,
        check: impl AsyncFn() -> Result<Vec<Finding>, Error>,
    ) -> Result<Vec<Finding>, Error> {
        let mut findings = check().await?;
        for _ in 1..CHECKS {
            if findings.iter().all(|finding| finding.violations.is_empty()) {
                break;
            }
            tokio::time::sleep(self.recheck_pause).await;
            let earlier = std::mem::replace(&mut findings, check().await?);
            for (finding, earlier) in findings.iter_mut().zip(&earlier) {
                finding.keep_repeated(earlier);
            }
        }
        Ok(findings)
    }
}

/// The result of a check with one finding.
pub(crate) async fn single<E>(finding: impl Future<Output = Result<Finding, E>>) -> Result<Vec<Finding>, Error>
where
    Error: From<E>,
{
    Ok(vec![finding.await?])
}

/// Merges the findings of a range into those of the ranges before it.
pub(crate) fn merge(all: &mut Vec<Finding>, more: Vec<Finding>) {
    if all.is_empty() {
        *all = more;
        return;
    }
    for (finding, more) in all.iter_mut().zip(more) {
        finding.merge(more);
    }
}
