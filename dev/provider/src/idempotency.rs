//! Idempotency like Stripe's: the same key with the same parameters gets the stored response; with other parameters, or while
//! its first call runs, it is refused. Keys never expire (Stripe's may after a day), so that a late retry never has a second
//! effect.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::journal::Position;

/// Stripe's maximum.
const LONGEST: usize = 255;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    name: String,
    /// A hash of path and parameters. 64 bits are enough to detect mistakes.
    fingerprint: u64,
}

/// The keys that were used. Responses stay in the journal: replays are rare, and a load test uses a million keys.
#[derive(Default)]
pub(crate) struct Keys(HashMap<Box<str>, Slot>);

struct Slot {
    fingerprint: u64,
    /// `None` while the first call runs.
    response: Option<Position>,
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
            // Lengths keep different lists of texts from having the same bytes.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let fingerprint = hash.first_chunk().expect("32 bytes begin with 8");
        Ok(Key { name: name.to_owned(), fingerprint: u64::from_be_bytes(*fingerprint) })
    }
}

impl Keys {
    /// The position of this key's response, if it was used before.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Position>, Error> {
        match self.0.get(key.name.as_str()) {
            None => Ok(None),
            Some(slot) if slot.fingerprint != key.fingerprint => Err(Error::KeyReused(key.name.clone())),
            Some(Slot { response: None, .. }) => Err(Error::KeyInUse),
            Some(Slot { response, .. }) => Ok(*response),
        }
    }

    pub(crate) fn claim(&mut self, key: &Key) {
        self.0.insert(key.name.as_str().into(), Slot { fingerprint: key.fingerprint, response: None });
    }

    pub(crate) fn store(&mut self, key: &Key, response: Position) {
        self.0.insert(key.name.as_str().into(), Slot { fingerprint: key.fingerprint, response: Some(response) });
    }

    /// Removes the claim of a call that failed; a stored response stays.
    pub(crate) fn release(&mut self, key: &Key) {
        if let Entry::Occupied(slot) = self.0.entry(key.name.as_str().into())
            && slot.get().response.is_none()
        {
            slot.remove();
        }
    }
}
