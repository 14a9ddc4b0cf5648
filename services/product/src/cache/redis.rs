//! The part of the cache that all replicas share.
//!
//! An epoch names the memory of one Redis: when it is lost, by a restart or a flush, so are the marks of changes, and the next copy of
//! changes begins another epoch. What was read from the database in an older epoch is not stored.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chassis::redis::{Error, Redis, Script};
use contracts::souk::product::v1::Product as Message;

use super::sync::Copied;
use super::{Found, TRUSTED_FOR, entry};
use crate::product::{Product, ProductId};

/// How long Redis keeps that a product does not exist: anybody may ask for any id, so these are many.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// A mark of a change outlives each read that began before the change.
const MARKED_FOR: Duration = Duration::from_secs(60);
/// What was read longer ago than this is not stored, so that marks outlive it.
const FILL_WITHIN: Duration = Duration::from_secs(10);
/// Lifetimes differ by up to this part, so that what was read at once does not end at once.
const JITTER: f64 = 0.2;
/// A Redis that uses more of its memory gets no more products, which would take the place of others' keys: when it is full, those go
/// first that end soonest, such as counters of limits.
const FULL_PERCENT: i64 = 80;
/// Keys of one script: Redis does nothing else while it runs.
const MARKED_AT_ONCE: usize = 500;

pub(crate) struct Shared {
    redis: Redis,
    /// Before the keys. It has the format of entries, so that releases with different ones do not read each other's.
    prefix: String,
    pub(super) lifetime: Duration,
    trusted_for: Duration,
    fill: Script,
    invalidate: Script,
    memory: Script,
    pub(super) copied: Mutex<Copied>,
}

impl Shared {
    pub(crate) fn new(redis: Redis, prefix: &str, lifetime: Duration) -> Self {
        let scripts = [include_str!("fill.lua"), include_str!("invalidate.lua"), include_str!("memory.lua")];
        let [fill, invalidate, memory] = scripts.map(Script::new);
        let (prefix, copied) = (format!("{prefix}:1:"), Mutex::default());
        Self { redis, prefix, lifetime, trusted_for: TRUSTED_FOR, fill, invalidate, memory, copied }
    }

    /// A slow machine fails no test that is not about this time.
    #[cfg(test)]
    pub(crate) fn trusted_for(self, trusted_for: Duration) -> Self {
        Self { trusted_for, ..self }
    }

    /// The epoch of Redis, if changes were copied there recently: only then is it read.
    pub(super) fn trusted_epoch(&self) -> Option<i64> {
        let copied = self.copied.lock().expect("nothing panics while it holds this lock");
        copied.last.filter(|last| last.at.elapsed() < self.trusted_for).map(|last| last.epoch)
    }

    /// Whether Redis has room for products.
    pub(super) async fn is_full(&self) -> Result<bool, Error> {
        let used = self.redis.run_script(&self.memory, vec![], vec![]).await?;
        Ok(used.first().is_some_and(|percent| *percent >= FULL_PERCENT))
    }

    /// None: Redis does not have it.
    pub(crate) async fn get(&self, product_id: ProductId) -> Result<Option<Found<Message>>, Error> {
        let entry = self.redis.get(self.key(product_id)).await?;
        Ok(entry.as_deref().and_then(entry::decode))
    }

    /// Stores what was read from the database since `begun`. If it fails, the next reader does it.
    pub(crate) async fn fill(&self, epoch: i64, begun: Instant, product_id: ProductId, found: Option<&Product>) {
        if begun.elapsed() > FILL_WITHIN || self.copied.lock().expect("nothing panics while it holds this lock").is_full
        {
            return;
        }
        let (version, lifetime) = found.map_or((0, ABSENT_FOR), |product| (product.version, self.lifetime));
        let lifetime = lifetime.mul_f64(rand::random_range(1.0 - JITTER..=1.0));
        let arguments = [epoch.to_string(), version.to_string()].map(String::into_bytes);
        let lifetime = lifetime.as_millis().max(1).to_string().into_bytes();
        let arguments = [arguments.to_vec(), vec![entry::encode(found), lifetime]].concat();
        let keys = vec![self.epoch_key(), self.key(product_id)];
        let _ = self.redis.run_script_with_bytes(&self.fill, keys, arguments).await;
    }

    /// Marks that these products changed, with their versions. Returns the epoch.
    pub(crate) async fn invalidate(&self, changed: &[(ProductId, i64)]) -> Result<i64, Error> {
        // As large as an integer that a script returns without loss.
        let mut epoch = rand::random_range(1..1_i64 << 53);
        let mut chunks = changed.chunks(MARKED_AT_ONCE);
        // At least once, for the epoch.
        let mut chunk = chunks.next().unwrap_or_default();
        loop {
            let keys = chunk.iter().map(|(product_id, _)| self.key(*product_id));
            let keys = std::iter::once(self.epoch_key()).chain(keys).collect();
            let versions = chunk.iter().map(|(_, version)| version.to_string());
            let arguments =
                [epoch.to_string(), MARKED_FOR.as_millis().to_string()].into_iter().chain(versions).collect();
            let response = self.redis.run_script(&self.invalidate, keys, arguments).await?;
            epoch = response.first().copied().unwrap_or(epoch);
            match chunks.next() {
                Some(next) => chunk = next,
                None => return Ok(epoch),
            }
        }
    }

    fn key(&self, product_id: ProductId) -> String {
        format!("{}{product_id}", self.prefix)
    }

    fn epoch_key(&self) -> String {
        format!("{}epoch", self.prefix)
    }
}
