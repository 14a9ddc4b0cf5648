//! I5: published events against recorded ones.

use std::sync::Arc;

use bus::{Replayed, Unreadable};
use chassis::check::{Exemptions, Finding};
use uuid::Uuid;

use super::assert_each_found;
use crate::topics::Keys;

const TOPIC: &str = "souk.test.v1";

/// One key, as it was recorded before and after its topic was read.
fn check((before, after): (i64, i64), waiting: Option<i64>, published: &[i64], exemptions: Exemptions) -> Finding {
    let (key, mut finding) = (Uuid::from_u128(1), Finding::new("I5", TOPIC));
    let mut keys = Keys::new(TOPIC, Uuid::nil(), exemptions.into());
    keys.add_recorded(vec![(key, before)]);
    if let Some(first) = waiting {
        keys.add_waiting(key, first);
    }
    for version in published {
        keys.add(Replayed::Event { key, version: *version });
    }
    keys.compare(key, after);
    keys.finish(&mut finding);
    finding
}

/// A topic of one record, while nothing is recorded.
fn check_record(record: Replayed) -> Finding {
    let mut finding = Finding::new("I5", TOPIC);
    let mut keys = Keys::new(TOPIC, Uuid::nil(), Arc::default());
    keys.add(record);
    keys.finish(&mut finding);
    finding
}

#[test]
fn events_that_are_not_published_as_they_were_recorded() {
    let check = |recorded: i64, waiting: Option<i64>, published: &[i64]| {
        check((recorded, recorded), waiting, published, Exemptions::default())
    };
    let sound = || check(3, None, &[1, 2, 3]);
    let unrecorded = Replayed::Event { key: Uuid::from_u128(1), version: 1 };
    let unreadable = Replayed::Unreadable { partition: 0, offset: 7, why: Unreadable("ce_type") };
    assert_each_found(vec![
        ("an event that was lost", sound(), check(3, None, &[1, 2])),
        ("an event that was lost while a later one is in the outbox", check(3, Some(2), &[1]), check(3, Some(3), &[1])),
        ("an event that was published and not recorded", check(3, Some(2), &[1, 2]), check(2, None, &[1, 2, 3])),
        ("events that were swapped", sound(), check(3, None, &[1, 3, 2])),
        ("a repeat that hides a gap", check(3, None, &[1, 1, 2, 1, 3]), check(3, None, &[1, 1, 3, 3])),
        ("an event of a key of which nothing is recorded", sound(), check_record(unrecorded)),
        ("a record that is no event", sound(), check_record(unreadable)),
    ]);
}

#[test]
fn events_that_are_recorded_while_topics_are_read_are_no_violation() {
    let finding = check((1, 3), None, &[1, 2], Exemptions::default());
    assert_eq!((finding.checked, finding.violations.len()), (1, 0));
}

#[test]
fn a_discarded_dead_letter_exempts_only_what_it_explains() {
    let exemptions = || [Uuid::from_u128(1).to_string()].into_iter().collect::<Exemptions>();
    let check = |recorded, published: &[i64]| check((recorded, recorded), None, published, exemptions());
    for (published, why) in [(&[1, 2, 3][..], "an event that is not recorded"), (&[1, 9, 2], "out of order")] {
        let finding = check(2, published);
        assert_eq!((finding.violations.len(), finding.exempted), (0, 1), "{why}: {finding:?}");
    }
    for (published, why) in [(&[1][..], "never published"), (&[2], "nor in a gap"), (&[2, 1], "nor too late")] {
        let finding = check(2, published);
        assert_eq!((finding.violations.len(), finding.exempted), (1, 0), "{why}: {finding:?}");
    }
}
