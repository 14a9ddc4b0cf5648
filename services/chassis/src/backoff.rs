//! How long to wait before something that failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Waits that double with each failure in a row, up to a bound, with jitter, so that replicas that failed together do not
/// come back together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff(ExponentialBuilder);

impl Backoff {
    /// The first wait is `least` or up to twice that; none is longer than `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        // Jitter comes on top of the bound, up to as much again.
        let doubling = ExponentialBuilder::new().with_min_delay(least).with_max_delay(most / 2);
        Self(doubling.without_max_times().with_jitter())
    }

    /// The wait after so many failures in a row.
    pub fn after(self, failures: u32) -> Duration {
        // Any that is in use has reached its bound by then.
        let earlier = failures.clamp(1, 32) - 1;
        self.0.build().nth(earlier as usize).expect("waits without a largest count do not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_bound_and_differ() {
        let (least, most) = (Duration::from_millis(50), Duration::from_secs(30));
        let backoff = Backoff::new(least, most);
        for (failures, base) in [(0, 50), (1, 50), (2, 100), (4, 400), (9, 12_800), (10, 15_000), (u32::MAX, 15_000)] {
            let base = Duration::from_millis(base);
            let waits: Vec<_> = (0..20).map(|_| backoff.after(failures)).collect();
            // Delays are multiplied as 32-bit floats.
            let (low, high) = (base.mul_f64(0.999), base.mul_f64(2.001));
            assert!(waits.iter().all(|wait| (low..=high).contains(wait)), "after {failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "after {failures}: {waits:?}");
        }
    }
}
