//! Whether the server of a channel is available, as far as this process knows. While it is not, notifications stay due and are not
//! attempted, but for one from time to time that finds out: a thousand that wait cost no more than one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chassis::Backoff;
use time::OffsetDateTime;

#[derive(Default)]
pub(crate) struct Availability(Mutex<Option<Outage>>);

struct Outage {
    probes: u32,
    next_probe: OffsetDateTime,
}

impl Availability {
    /// How many notifications a worker may claim: `set`, one as a probe, or none.
    pub(crate) fn admit(&self, set: i64, now: OffsetDateTime) -> i64 {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => set,
            Some(outage) if now < outage.next_probe => 0,
            Some(outage) => {
                *outage = Outage::after(outage.probes + 1, now);
                1
            }
        }
    }

    /// What an attempt found out.
    pub(crate) fn record(&self, is_available: bool, now: OffsetDateTime) {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_available {
            *outage = None;
        } else {
            outage.get_or_insert_with(|| Outage::after(1, now));
        }
    }
}

impl Outage {
    fn after(probes: u32, now: OffsetDateTime) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        Self { probes, next_probe: now + backoff.after(probes) }
    }
}
