//! Whether the server of a channel is available, as far as this process knows. While it is not, notifications stay due and are not
//! attempted, but for one from time to time that finds out: a thousand that wait cost no more than one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chassis::Backoff;
use time::OffsetDateTime;

/// After so many messages in a row without a reply, a server counts as away: each may have been accepted, and few may be sent again.
const UNANSWERED: u32 = 8;

#[derive(Default)]
pub(crate) struct Availability(Mutex<Known>);

#[derive(Default)]
struct Known {
    outage: Option<Outage>,
    /// Messages in a row.
    unanswered: u32,
}

struct Outage {
    probes: u32,
    next_probe: OffsetDateTime,
}

/// What an attempt found out about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Works,
    IsAway,
    /// It has the message, and did not reply.
    Unanswered,
    /// Nothing: the message needed no server, or what the server said is about the message.
    NoEvidence,
    /// Nothing: we could not write or address the message, and the next one may fail for the same reason.
    NotReached,
}

impl Availability {
    /// How many notifications a worker may claim: `set`, one as a probe, or none.
    pub(crate) fn admit(&self, set: i64, now: OffsetDateTime) -> i64 {
        match &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).outage {
            None => set,
            Some(outage) if now < outage.next_probe => 0,
            Some(outage) => {
                *outage = Outage::after(outage.probes + 1, now);
                1
            }
        }
    }

    pub(crate) fn record(&self, seen: Seen, now: OffsetDateTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (seen, &mut known.outage) {
            (Seen::Works, _) => *known = Known::default(),
            // The probe found out nothing, so the next one need not wait.
            (Seen::NoEvidence, Some(outage)) => outage.next_probe = now,
            (Seen::IsAway, None) => known.outage = Some(Outage::after(1, now)),
            (Seen::Unanswered, None) => {
                known.unanswered += 1;
                if known.unanswered >= UNANSWERED {
                    known.outage = Some(Outage::after(1, now));
                }
            }
            (Seen::IsAway | Seen::Unanswered, Some(_)) | (Seen::NoEvidence, None) | (Seen::NotReached, _) => {}
        }
    }
}

impl Outage {
    fn after(probes: u32, now: OffsetDateTime) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        Self { probes, next_probe: now + backoff.after(probes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const LATER: OffsetDateTime = NOW.saturating_add(time::Duration::MINUTE);

    fn after(seen: &[Seen]) -> Availability {
        let availability = Availability::default();
        seen.iter().for_each(|seen| availability.record(*seen, NOW));
        availability
    }

    #[test]
    fn one_probe_at_a_time_until_one_succeeds() {
        let availability = after(&[Seen::IsAway, Seen::Unanswered]);
        assert_eq!([NOW, LATER, LATER].map(|now| availability.admit(8, now)), [0, 1, 0]);
        availability.record(Seen::Works, LATER);
        assert_eq!(availability.admit(8, LATER), 8);
    }

    #[test]
    fn a_probe_that_found_out_nothing_is_followed_by_another_at_once() {
        let availability = after(&[Seen::IsAway]);
        assert_eq!(availability.admit(8, LATER), 1);
        availability.record(Seen::NoEvidence, LATER);
        assert_eq!([LATER; 2].map(|now| availability.admit(8, now)), [1, 0]);
        availability.record(Seen::NotReached, LATER);
        assert_eq!(availability.admit(8, LATER), 0, "what fails for us goes on failing");
    }

    #[test]
    fn a_server_that_answers_nothing_is_away() {
        let most = [Seen::Unanswered; UNANSWERED as usize - 1];
        assert_eq!(after(&most).admit(8, NOW), 8);
        assert_eq!(after(&[&most[..], &[Seen::Works], &most].concat()).admit(8, NOW), 8);
        assert_eq!(after(&[&most[..], &[Seen::NoEvidence, Seen::Unanswered]].concat()).admit(8, NOW), 0);
    }
}
