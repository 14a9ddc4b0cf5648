//! I5: an event was published if and only if it was recorded; for each key, first occurrences are in order and without gaps.
//!
//! A topic has no index, so it is read from beginning to end, with a few numbers in memory for each key. Keys are checked by
//! ranges; with more keys than are kept in memory, the topic is read again.

use std::collections::HashMap;
use std::sync::Arc;

use bus::{Brokers, Replayed, Unreadable};
use chassis::Unexpected;
use chassis::check::{Exemptions, Finding, MAX_VIOLATIONS};
use futures_util::TryStreamExt;
use sqlx::PgPool;
use uuid::Uuid;

use crate::recheck::single;
use crate::{Error, Sources, progress};

/// How many keys are kept in memory that were not recorded before the topic was read.
const MAX_UNRECORDED: usize = 100_000;
/// After how many records progress is printed.
const PROGRESS_EVERY: u64 = 10_000;

impl Sources {
    /// I5 of a topic and the database whose outbox it is published from. `recorded` reads the versions of keys, see [`check`].
    pub(crate) async fn check_topic(
        &self,
        topic: &'static str,
        db: &PgPool,
        recorded: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
        exemptions: &Arc<Exemptions>,
    ) -> Result<Vec<Finding>, Error> {
        let most = self.sizes.keys_in_memory;
        self.recheck(|| single(check(&self.kafka, topic, db, &recorded, most, exemptions))).await
    }
}

/// `page` reads the recorded versions of the keys after a key, in order; it is empty at the end. `most`: how many keys are kept
/// in memory at once.
async fn check(
    kafka: &Brokers,
    topic: &'static str,
    db: &PgPool,
    page: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
    most: i64,
    exemptions: &Arc<Exemptions>,
) -> Result<Finding, Error> {
    let (mut finding, mut after) = (Finding::new("I5", topic), Some(Uuid::nil()));
    while let Some(from) = after {
        // Events are recorded and published meanwhile. An event that was recorded before and is not in the outbox must be in the
        // topic; an event in the topic must have been recorded by the time it was read.
        progress::set(format!("I5, {topic}: what is recorded"));
        let mut keys = Keys::new(topic, from, exemptions.clone());
        after = keys.load(&page, most).await?;
        keys.load_waiting(db).await?;
        let (kafka, mut read) = (kafka.clone(), 0_u64);
        let replayed = tokio::task::spawn_blocking(move || {
            let add = |record| {
                keys.add(record);
                read += 1;
                if read.is_multiple_of(PROGRESS_EVERY) {
                    progress::set(format!("I5, {topic}: {read} records were read"));
                }
            };
            bus::replay(&kafka, topic, add).map(|()| keys)
        });
        keys = replayed.await.map_err(|error| Unexpected::Broken(format!("reading {topic}: {error}")))??;
        keys.compare_all(&page).await?;
        keys.finish(&mut finding);
    }
    Ok(finding)
}

/// A range of keys: those after one key, up to another or to the last.
pub(crate) struct Keys {
    topic: &'static str,
    after: Uuid,
    last: Option<Uuid>,
    keys: HashMap<Uuid, Versions>,
    unrecorded: usize,
    exemptions: Arc<Exemptions>,
    finding: Finding,
}

/// The versions of one key's events. 12 bytes, as there are many.
#[derive(Clone, Copy, Default)]
struct Versions {
    /// The last version that must have been published.
    required: u32,
    /// The last version that was published in order and without gaps.
    in_order: u32,
    /// The first version that was out of order, or 0.
    out_of_order: u32,
}

fn small(version: i64) -> u32 {
    u32::try_from(version.max(0)).unwrap_or(u32::MAX)
}

impl Keys {
    pub(crate) fn new(topic: &'static str, after: Uuid, exemptions: Arc<Exemptions>) -> Self {
        let finding = Finding::new("I5", topic);
        Self { topic, after, last: None, keys: HashMap::new(), unrecorded: 0, exemptions, finding }
    }

    /// Reads the recorded versions. Returns the key after which the next range begins, if there is one.
    pub(crate) async fn load(
        &mut self,
        page: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
        most: i64,
    ) -> Result<Option<Uuid>, Unexpected> {
        let mut at = self.after;
        while (self.keys.len() as i64) < most {
            let recorded = page(at).await?;
            let Some((last, _)) = recorded.last() else { return Ok(None) };
            at = *last;
            self.add_recorded(recorded);
        }
        self.last = Some(at);
        Ok(self.last)
    }

    pub(crate) fn add_recorded(&mut self, recorded: Vec<(Uuid, i64)>) {
        let required = recorded.into_iter().map(|(key, version)| (key, small(version)));
        self.keys.extend(required.map(|(key, required)| (key, Versions { required, ..Versions::default() })));
    }

    /// Events in the outbox need not be published yet.
    async fn load_waiting(&mut self, db: &PgPool) -> Result<(), Unexpected> {
        let waiting = sqlx::query!(r#"select key, min(version) as "first!" from outbox group by key"#);
        let mut waiting = waiting.fetch(db);
        while let Some(row) = waiting.try_next().await? {
            self.add_waiting(row.key, row.first);
        }
        Ok(())
    }

    pub(crate) fn add_waiting(&mut self, key: Uuid, first: i64) {
        if let Some(versions) = self.keys.get_mut(&key) {
            versions.required = versions.required.min(small(first - 1));
        }
    }

    pub(crate) fn add(&mut self, record: Replayed) {
        match record {
            Replayed::Event { key, version } => self.add_event(key, version),
            // A record without a key is reported by the first range.
            Replayed::Unreadable { partition, offset, why } if self.after.is_nil() => {
                self.add_unreadable(partition, offset, &why);
            }
            Replayed::Unreadable { .. } => {}
        }
    }

    fn add_event(&mut self, key: Uuid, version: i64) {
        if key <= self.after && !key.is_nil() || self.last.is_some_and(|last| key > last) {
            return;
        }
        if !self.keys.contains_key(&key) {
            // Recorded since, or never. A key that is ignored here is found when the check is repeated.
            if self.unrecorded == MAX_UNRECORDED {
                return;
            }
            self.unrecorded += 1;
        }
        let versions = self.keys.entry(key).or_default();
        let version = small(version);
        if version == versions.in_order + 1 {
            versions.in_order = version;
        } else if version > versions.in_order && versions.out_of_order == 0 {
            versions.out_of_order = version;
        }
    }

    fn add_unreadable(&mut self, partition: i32, offset: i64, why: &Unreadable) {
        let name = record_name(self.topic, partition, offset);
        self.finding.add_unless_exempt(&self.exemptions, name, Some(format!("it cannot be read as an event: {why}")));
    }

    /// Compares with the versions that are recorded by now.
    async fn compare_all(
        &mut self,
        page: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
    ) -> Result<(), Unexpected> {
        let mut at = self.after;
        loop {
            let recorded = page(at).await?;
            let Some((last, _)) = recorded.last() else { return Ok(()) };
            at = *last;
            for (key, version) in recorded {
                if self.last.is_some_and(|last| key > last) {
                    return Ok(());
                }
                self.compare(key, version);
            }
        }
    }

    pub(crate) fn compare(&mut self, key: Uuid, version: i64) {
        let Versions { required, in_order, out_of_order } = self.keys.remove(&key).unwrap_or_default();
        let recorded = small(version);
        let why = if out_of_order > 0 {
            Some("out of order")
        } else if in_order < required {
            Some("lost")
        } else if in_order > recorded {
            Some("published, but not recorded")
        } else {
            None
        };
        let why = why.map(|why| format!("{why}: {recorded} recorded, {}", describe(in_order, out_of_order)));
        if in_order < required {
            // An event that was not published cannot have been discarded.
            self.finding.add(key, why);
        } else {
            self.finding.add_unless_exempt(&self.exemptions, key, why);
        }
    }

    /// Keys that are left are not recorded.
    pub(crate) fn finish(mut self, finding: &mut Finding) {
        self.keys.retain(|_, versions| versions.in_order > 0 || versions.out_of_order > 0);
        let mut left: Vec<_> = self.keys.into_iter().collect();
        left.sort_unstable_by_key(|(key, _)| *key);
        for (key, Versions { in_order, out_of_order, .. }) in left.into_iter().take(MAX_VIOLATIONS) {
            let why = format!("{}, but nothing is recorded", describe(in_order, out_of_order));
            self.finding.add_unless_exempt(&self.exemptions, key, Some(why));
        }
        finding.merge(self.finding);
    }
}

fn describe(in_order: u32, out_of_order: u32) -> String {
    match out_of_order {
        0 => format!("published up to {in_order}"),
        out_of_order => format!("published up to {in_order}, then {out_of_order}"),
    }
}

/// The name of a record that has no key: its position.
pub(crate) fn record_name(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}, partition {partition}, offset {offset}")
}
