//! How long something takes, as counts in buckets on a logarithmic scale: each bucket ends a tenth above the one before. Sums
//! of such counts are the counts of all together, so percentiles can be computed over any time, within 5 %.

use std::time::Duration;

const GROWTH: f64 = 1.1;
/// About 200 days.
const LAST: i16 = 250;

/// The bucket of a duration. The first has everything up to a millisecond.
pub(crate) fn bucket_of(duration: Duration) -> i16 {
    let milliseconds = duration.as_secs_f64() * 1_000.0;
    if milliseconds <= 1.0 {
        return 0;
    }
    // It is positive and small: the cast does not truncate.
    (milliseconds.ln() / GROWTH.ln()).ceil().min(f64::from(LAST)) as i16
}

/// The duration that differs by the same factor from both ends of a bucket.
fn middle(bucket: i16) -> Duration {
    Duration::from_secs_f64(GROWTH.powf(f64::from(bucket) - 0.5) / 1_000.0)
}

/// The duration that this share of all did not exceed. The counts are in the order of their buckets; none if there are none.
pub(crate) fn percentile(counts: &[(i16, i64)], share: f64) -> Option<Duration> {
    let all: i64 = counts.iter().map(|(_, count)| count).sum();
    // Counts are far below 2^52.
    let rank = ((all as f64 * share).ceil() as i64).max(1);
    let mut seen = 0;
    let reached = counts.iter().find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    reached.map(|(bucket, _)| middle(*bucket))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counts(milliseconds: impl Iterator<Item = u64>) -> Vec<(i16, i64)> {
        let mut counts = BTreeMap::new();
        for it in milliseconds {
            *counts.entry(bucket_of(Duration::from_millis(it))).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    #[test]
    fn percentiles_are_within_five_percent() {
        for (most, step) in [(1_000, 1), (900_000, 700), (10_000, 3)] {
            let counts = counts((1..=most).step_by(step));
            for share in [0.5, 0.9, 0.99] {
                let found = percentile(&counts, share).expect("there are some").as_secs_f64() * 1_000.0;
                let exact = most as f64 * share;
                assert!((found / exact - 1.0).abs() <= 0.05, "{share} of {most}: {found}");
            }
        }
    }

    #[test]
    fn sums_of_counts_are_the_counts_of_all() {
        let (low, high) = (counts(1..=500), counts(501..=1_000));
        let mut sum = BTreeMap::new();
        for (bucket, count) in low.into_iter().chain(high) {
            *sum.entry(bucket).or_default() += count;
        }
        assert_eq!(sum.into_iter().collect::<Vec<_>>(), counts(1..=1_000));
    }

    #[test]
    fn ends_of_the_scale_count_too() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), LAST);
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[(3, 1)], 0.99), percentile(&[(3, 1)], 0.01));
    }
}
