//! I5: an event was published if and only if it was recorded; for each key, first occurrences came in order and without
//! gaps.
//!
//! A topic has no index, so it is read from its beginning to its end, and what is kept of each stream meanwhile is a few
//! numbers. Streams are checked by ranges of keys, so many at a time; with more of them the topic is read more than once.

use std::collections::HashMap;
use std::sync::Arc;

use bus::{Replayed, Unreadable};
use chassis::Unexpected;
use chassis::check::{Excuses, Finding, MOST_VIOLATIONS};
use futures_util::TryStreamExt;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Error, progress};

/// How many streams are kept that were not on record before.
const MOST_STRANGERS: usize = 100_000;
/// How often it is said how far a topic is read.
const SAY: u64 = 10_000;

/// `page`: the streams that have events on record, in the order of their keys, from behind a key on: a page of them, which is
/// empty at the end. `most`: how many streams are kept in memory at once.
pub(crate) async fn check(
    brokers: &str,
    topic: &'static str,
    db: &PgPool,
    page: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
    most: i64,
    excuses: &Arc<Excuses>,
) -> Result<Finding, Error> {
    let (mut finding, mut after) = (Finding::new("I5", topic), Some(Uuid::nil()));
    while let Some(from) = after {
        // In an open shop all of it moves. What was recorded before and does not wait must be in the topic; what is in the
        // topic must have been recorded by the time it was read.
        progress::set(format!("I5, {topic}: what is recorded"));
        let mut streams = Streams::new(topic, from, excuses.clone());
        after = streams.load(&page, most).await?;
        streams.wait(db).await?;
        let (brokers, mut read) = (brokers.to_owned(), 0_u64);
        let heard = tokio::task::spawn_blocking(move || {
            let hear = |record| {
                streams.hear(record);
                read += 1;
                if read.is_multiple_of(SAY) {
                    progress::set(format!("I5, {topic}: {read} records were read"));
                }
            };
            bus::replay(&brokers, topic, hear).map(|()| streams)
        });
        streams = heard.await.map_err(|error| Unexpected::Broken(format!("reading {topic}: {error}")))??;
        streams.judge(&page).await?;
        streams.finish(&mut finding);
    }
    Ok(finding)
}

/// A range of streams, from behind one key to another or to the end of all.
pub(crate) struct Streams {
    topic: &'static str,
    after: Uuid,
    last: Option<Uuid>,
    streams: HashMap<Uuid, Stream>,
    strangers: usize,
    excuses: Arc<Excuses>,
    finding: Finding,
}

/// How far a stream has come. 12 bytes, as there are many.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// Up to which version it must have been published.
    needed: u32,
    /// Up to which version it was published in order and without gaps.
    told: u32,
    /// The first that was not, if there is one.
    stray: u32,
}

fn small(version: i64) -> u32 {
    u32::try_from(version.max(0)).unwrap_or(u32::MAX)
}

impl Streams {
    pub(crate) fn new(topic: &'static str, after: Uuid, excuses: Arc<Excuses>) -> Self {
        let finding = Finding::new("I5", topic);
        Self { topic, after, last: None, streams: HashMap::new(), strangers: 0, excuses, finding }
    }

    /// Reads up to which version streams are recorded. Where the next range begins, if there is one.
    pub(crate) async fn load(
        &mut self,
        page: impl AsyncFn(Uuid) -> Result<Vec<(Uuid, i64)>, Unexpected>,
        most: i64,
    ) -> Result<Option<Uuid>, Unexpected> {
        let mut at = self.after;
        while (self.streams.len() as i64) < most {
            let recorded = page(at).await?;
            let Some((last, _)) = recorded.last() else { return Ok(None) };
            at = *last;
            self.begin(recorded);
        }
        self.last = Some(at);
        Ok(self.last)
    }

    pub(crate) fn begin(&mut self, recorded: Vec<(Uuid, i64)>) {
        let needed = recorded.into_iter().map(|(key, version)| (key, small(version)));
        self.streams.extend(needed.map(|(key, needed)| (key, Stream { needed, ..Stream::default() })));
    }

    /// What waits to be published need not be.
    async fn wait(&mut self, db: &PgPool) -> Result<(), Unexpected> {
        let waiting = sqlx::query!(r#"select key, min(version) as "first!" from outbox group by key"#);
        let mut waiting = waiting.fetch(db);
        while let Some(row) = waiting.try_next().await? {
            self.waits(row.key, row.first);
        }
        Ok(())
    }

    pub(crate) fn waits(&mut self, key: Uuid, first: i64) {
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.needed = stream.needed.min(small(first - 1));
        }
    }

    pub(crate) fn hear(&mut self, record: Replayed) {
        match record {
            Replayed::Event { key, version } => self.hear_event(key, version),
            // It has no key, so it is of the first range.
            Replayed::Unreadable { partition, offset, why } if self.after.is_nil() => {
                self.hear_unreadable(partition, offset, &why);
            }
            Replayed::Unreadable { .. } => {}
        }
    }

    fn hear_event(&mut self, key: Uuid, version: i64) {
        if key <= self.after && !key.is_nil() || self.last.is_some_and(|last| key > last) {
            return;
        }
        if !self.streams.contains_key(&key) {
            // Recorded since, or by nobody. Those that are not kept are in the topic still when the check is repeated.
            if self.strangers == MOST_STRANGERS {
                return;
            }
            self.strangers += 1;
        }
        let stream = self.streams.entry(key).or_default();
        let version = small(version);
        if version == stream.told + 1 {
            stream.told = version;
        } else if version > stream.told && stream.stray == 0 {
            stream.stray = version;
        }
    }

    fn hear_unreadable(&mut self, partition: i32, offset: i64, why: &Unreadable) {
        let thing = record_name(self.topic, partition, offset);
        self.finding.look_unless(&self.excuses, thing, Some(format!("it cannot be read as an event: {why}")));
    }

    /// Compares with what is recorded by now.
    async fn judge(
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
                self.recorded(key, version);
            }
        }
    }

    pub(crate) fn recorded(&mut self, key: Uuid, version: i64) {
        let Stream { needed, told, stray } = self.streams.remove(&key).unwrap_or_default();
        let recorded = small(version);
        let why = if stray > 0 {
            Some("out of order")
        } else if told < needed {
            Some("lost")
        } else if told > recorded {
            Some("published, and not recorded")
        } else {
            None
        };
        let why = why.map(|why| format!("{why}: {recorded} recorded, {}", describe(told, stray)));
        if told < needed {
            // Nobody can have discarded what was not published in its place.
            self.finding.look(key, why);
        } else {
            self.finding.look_unless(&self.excuses, key, why);
        }
    }

    /// What is left is on record nowhere.
    pub(crate) fn finish(mut self, finding: &mut Finding) {
        self.streams.retain(|_, stream| stream.told > 0 || stream.stray > 0);
        let mut left: Vec<_> = self.streams.into_iter().collect();
        left.sort_unstable_by_key(|(key, _)| *key);
        for (key, Stream { told, stray, .. }) in left.into_iter().take(MOST_VIOLATIONS) {
            let why = format!("{}, and nothing is recorded", describe(told, stray));
            self.finding.look_unless(&self.excuses, key, Some(why));
        }
        finding.absorb(self.finding);
    }
}

fn describe(told: u32, stray: u32) -> String {
    match stray {
        0 => format!("published up to {told}"),
        stray => format!("published up to {told}, then {stray}"),
    }
}

/// What a record is called that has no key.
pub(crate) fn record_name(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}, partition {partition}, offset {offset}")
}
