//! Passwords, hashed with argon2id (19 MiB, two passes) on a few threads of their own: logins wait in a
//! bounded queue, and are refused when it is full. What is hashed is an OpaqueString of RFC 8265, so that it does not matter how a
//! keyboard writes a letter.

use std::ops::RangeInclusive;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use chassis::Unexpected;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use unicode_normalization::UnicodeNormalization;

use crate::error::Error;

/// In characters, once normalized.
const LENGTH: RangeInclusive<usize> = 15..=128;
/// How many may wait for each slot.
const QUEUE: usize = 50;

/// The hash of no password. A login with an unknown e-mail address is checked against it, so that it takes as long as with a known
/// one. It is fixed, so that not even the first check takes longer.
pub(crate) const NO_PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A new password as it is hashed, or what is wrong with it.
pub(crate) fn prepare(password: &str) -> Result<String, &'static str> {
    let password = normalize(password);
    if !LENGTH.contains(&password.chars().count()) {
        return Err("must have 15 to 128 characters");
    }
    if password.chars().any(char::is_control) {
        return Err("must not contain control characters");
    }
    Ok(password)
}

/// RFC 8265, 4.2.2: every space is the one of ASCII, and what can be composed is (NFC).
fn normalize(password: &str) -> String {
    let is_space = |it: char| it.is_whitespace() && !it.is_control();
    password.chars().map(|it| if is_space(it) { ' ' } else { it }).nfc().collect()
}

/// What a password is tried as: normalized, and as it was typed, as older hashes are of that.
fn spellings(password: String) -> Vec<String> {
    let normalized = normalize(&password);
    if normalized == password { vec![password] } else { vec![normalized, password] }
}

pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    queue: Semaphore,
}

impl Passwords {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), queue: Semaphore::new(slots * QUEUE) }
    }

    pub(crate) async fn hash(&self, password: String, deadline: Instant) -> Result<String, Error> {
        Ok(self.run(deadline, move || hash_now(&password)).await??)
    }

    /// Whether it is the password of this hash.
    pub(crate) async fn verify(&self, password: String, hash: String, deadline: Instant) -> Result<bool, Error> {
        let verified = self.run(deadline, move || {
            let hash = PasswordHash::new(&hash).map_err(|error| broken("a stored password hash", error))?;
            let fits = |spelling: String| Argon2::default().verify_password(spelling.as_bytes(), &hash).is_ok();
            Ok::<_, Unexpected>(spellings(password).into_iter().any(fits))
        });
        Ok(verified.await??)
    }

    /// A caller that leaves gives up its place in the queue, and nothing is hashed for it.
    async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let _waiting = self.queue.try_acquire().map_err(|_| Error::PasswordChecksBusy)?;
        let slot = timeout_at(deadline, self.slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| chassis::Error::DeadlineExceeded)?;
        let slot = slot.map_err(|error| broken("the password slots", error))?;
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        Ok(task.await.map_err(|error| broken("hashing a password", error))?)
    }
}

fn hash_now(password: &str) -> Result<String, Unexpected> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| broken("hashing a password", error))?.to_string())
}

fn broken(what: &str, error: impl std::fmt::Display) -> Unexpected {
    Unexpected::Broken(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_password_is_the_same_however_it_is_written() {
        let composed = "caf\u{e9} au lait, bitte";
        for same in [composed, "cafe\u{301} au lait, bitte", "caf\u{e9}\u{a0}au\u{3000}lait, bitte"] {
            assert_eq!(prepare(same).as_deref(), Ok(composed), "{same:?}");
        }
        assert_eq!(spellings(composed.to_owned()).len(), 1);
        assert_eq!(spellings("cafe\u{301}".to_owned()), ["caf\u{e9}", "cafe\u{301}"]);
        assert_eq!(prepare("Correct Horse Battery").as_deref(), Ok("Correct Horse Battery"), "case matters");
    }

    #[test]
    fn its_length_is_counted_once_it_is_normalized() {
        assert!(prepare(&"e\u{301}".repeat(128)).is_ok());
        for bad in ["e\u{301}".repeat(14), "x".repeat(129), "correct horse\tbattery".to_owned()] {
            assert!(prepare(&bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_gives_up_its_place_in_the_queue() {
        let passwords = Passwords::new(1);
        let busy = passwords.slots.clone().acquire_owned().await.expect("a slot");
        let soon = Instant::now() + Duration::from_millis(20);
        let left = passwords.hash("correct horse battery".to_owned(), soon).await.expect_err("the only slot is busy");
        assert!(matches!(left, Error::Chassis(chassis::Error::DeadlineExceeded)), "{left:?}");
        assert_eq!(passwords.queue.available_permits(), QUEUE);
        drop(busy);
    }
}
