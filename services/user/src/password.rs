//! Passwords, hashed with argon2id (19 MiB, two passes) on a few threads of their own: a crowd of logins waits in line,
//! and a crowd that is too large is told to come back.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use chassis::Unexpected;
use tokio::sync::Semaphore;

use crate::error::Error;

/// How many may wait for each slot.
const QUEUE: usize = 50;

/// What an unknown e-mail address is checked against, so that it takes as long as a known one.
/// Fixed, so that not even the first one takes longer.
pub(crate) const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    line: Semaphore,
}

impl Passwords {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), line: Semaphore::new(slots * QUEUE) }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move || hash_now(&password)).await?
    }

    /// Whether it is the password of this hash. Without a hash it is nobody's.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        self.run(move || {
            let known = hash.is_some();
            let hash = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY))
                .map_err(|error| broken("a stored password hash", error))?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && known)
        })
        .await?
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let _waiting = self.line.try_acquire().map_err(|_| Error::PasswordChecksBusy)?;
        let slot = self.slots.clone().acquire_owned().await.map_err(|error| broken("the password slots", error))?;
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        task.await.map_err(|error| broken("hashing a password", error))
    }
}

fn hash_now(password: &str) -> Result<String, Error> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| broken("hashing a password", error))?.to_string())
}

fn broken(what: &str, error: impl std::fmt::Display) -> Error {
    chassis::Error::from(Unexpected::Broken(format!("{what}: {error}"))).into()
}
