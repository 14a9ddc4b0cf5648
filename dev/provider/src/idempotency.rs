//! Idempotency like Stripe's: the same key with the same parameters has the stored answer, with others it is refused,
//! and while its first call runs it is refused too. Keys are not forgotten (Stripe may after a day), so that a late
//! retry is never a second effect.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::journal::Place;

/// Stripe's.
const LONGEST: usize = 255;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    name: String,
    /// A hash of path and parameters: enough to tell an honest mistake, which is what it is for.
    fingerprint: u64,
}

/// What is known about each key. The answers themselves stay in the journal: replays are rare, and a load test makes
/// a million of them.
#[derive(Default)]
pub(crate) struct Keys(HashMap<Box<str>, Slot>);

struct Slot {
    fingerprint: u64,
    /// None while the first call runs.
    answer: Option<Place>,
}

impl Key {
    pub(crate) fn new(name: &str, path: &str, params: &[(String, String)]) -> Result<Key, Error> {
        if name.is_empty() || name.len() > LONGEST {
            return Err(Error::KeyLength);
        }
        let mut params: Vec<_> = params.iter().collect();
        params.sort();
        let mut hash = Sha256::new();
        for text in [path].into_iter().chain(params.into_iter().flat_map(|(name, value)| [name.as_str(), value])) {
            // The length keeps what is two texts from looking like one.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let fingerprint = hash.first_chunk().expect("32 bytes begin with 8");
        Ok(Key { name: name.to_owned(), fingerprint: u64::from_be_bytes(*fingerprint) })
    }
}

impl Keys {
    /// Where this key's answer is, if it was used before.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Place>, Error> {
        match self.0.get(key.name.as_str()) {
            None => Ok(None),
            Some(slot) if slot.fingerprint != key.fingerprint => Err(Error::KeyReused(key.name.clone())),
            Some(Slot { answer: None, .. }) => Err(Error::KeyInUse),
            Some(Slot { answer, .. }) => Ok(*answer),
        }
    }

    pub(crate) fn claim(&mut self, key: &Key) {
        self.0.insert(key.name.as_str().into(), Slot { fingerprint: key.fingerprint, answer: None });
    }

    pub(crate) fn store(&mut self, key: &Key, answer: Place) {
        self.0.insert(key.name.as_str().into(), Slot { fingerprint: key.fingerprint, answer: Some(answer) });
    }

    /// Lets go of a claim that came to nothing; an answer stays.
    pub(crate) fn release(&mut self, key: &Key) {
        if let Entry::Occupied(slot) = self.0.entry(key.name.as_str().into())
            && slot.get().answer.is_none()
        {
            slot.remove();
        }
    }
}
