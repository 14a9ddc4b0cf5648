//! Passwords, hashed with argon2id (19 MiB, two passes) on a few threads of their own: logins wait in bounded queues, and are
//! refused when theirs is full. What is hashed is an OpaqueString of RFC 8265, so that it does not matter how a
//! keyboard writes a letter.
//!
//! A new password has at least 15 characters, of any kinds, and must not be easy to guess, as zxcvbn estimates it. Lists of common
//! passwords would refuse almost none of that length: what people choose are common words twice, rows of keys, and their own
//! name, which zxcvbn takes apart.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use chassis::Unexpected;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};
use unicode_normalization::UnicodeNormalization;

use crate::account::UserId;
use crate::error::Error;
use crate::hash::Memory;
use crate::threads::Threads;

/// In characters, once normalized.
const LENGTH: RangeInclusive<usize> = 15..=128;
/// A password that is found in fewer guesses, as powers of ten, is refused. An attacker who has the hashes makes some hundred
/// guesses per second and machine, see the parameters above; one who has not is limited much more.
const MIN_GUESSES_LOG10: f64 = 10.0;
/// How many callers that nobody knows may wait for each slot.
const ANYBODY: usize = 50;
/// How many of the others may.
const KNOWN: usize = 20;
/// How many of the latter may be of one account, whose owner could otherwise take all places.
const KNOWN_PER_ACCOUNT: usize = 2;

/// The hash of no password. A login with an unknown e-mail address is checked against it, so that it takes as long as with a known
/// one. It is fixed, so that not even the first check takes longer.
pub(crate) const NO_PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCEhIQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A new password, before it is hashed.
pub(crate) struct NewPassword {
    text: String,
    /// The field of the request that has it.
    field: &'static str,
    /// What an attacker knows of the account: its address and name.
    known: Vec<String>,
}

impl NewPassword {
    /// Normalizes it and checks its length; [`Passwords::hash_new`] checks the rest.
    pub(crate) fn parse(text: &str, field: &'static str) -> Result<Self, chassis::Error> {
        let text = prepare(text).map_err(|why| chassis::Error::field(field, why))?;
        Ok(Self { text, field, known: vec![] })
    }

    /// Of an account with this address and name.
    pub(crate) fn of(self, email: &str, display_name: &str) -> Self {
        let parts = email.split(['@', '.', '+', '-', '_']).chain(display_name.split_whitespace());
        let known = parts.filter(|part| part.chars().count() > 2).take(10).map(str::to_owned).collect();
        Self { known, ..self }
    }
}

/// Estimated on the beginning: what is hard to guess there is hard to guess as a whole. The estimate of 32 characters takes less
/// than a millisecond, and at most about as long as a hash; that of 128 would take four times as long as one.
fn is_common(password: &str, known: &[String]) -> bool {
    let known: Vec<&str> = known.iter().map(String::as_str).chain(["souk"]).collect();
    let beginning: String = password.chars().take(32).collect();
    zxcvbn::zxcvbn(&beginning, &known).guesses_log10() < MIN_GUESSES_LOG10
}

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

/// The password was right.
pub(crate) struct Right {
    /// To be stored instead of the present one.
    pub(crate) better_hash: Option<String>,
}

/// Where a caller waits. A flood of logins fills one queue, and leaves places to owners of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// A device that has signed in to this account, or a session of it. If others of this account have its places, it waits with
    /// anybody.
    Known(UserId),
    Anybody,
}

pub(crate) struct Passwords {
    threads: Threads,
    slots: Arc<Semaphore>,
    known: Known,
    anybody: Semaphore,
    /// Of those whom nobody knows, only one at a time waits for a slot, so that the others need not wait behind them.
    turn: Semaphore,
}

impl Passwords {
    pub(crate) fn new(slots: usize) -> Self {
        let known = Known { places: Semaphore::new(slots * KNOWN), taken: Mutex::default() };
        let (anybody, turn) = (Semaphore::new(slots * ANYBODY), Semaphore::new(1));
        Self { threads: Threads::start(slots), slots: Arc::new(Semaphore::new(slots)), known, anybody, turn }
    }

    /// Refuses a password that is easy to guess.
    pub(crate) async fn hash_new(&self, password: NewPassword, deadline: Instant) -> Result<String, Error> {
        self.run(self.place(Queue::Anybody)?, deadline, move |memory| {
            let NewPassword { text, field, known } = password;
            if is_common(&text, &known) { Err(Error::PasswordCommon { field }) } else { Ok(memory.hash(&text)?) }
        })
        .await?
    }

    /// `None` if it is not the password of this hash. If the hash has weaker parameters than today's, or is of another spelling,
    /// there is a better one.
    pub(crate) async fn check(
        &self,
        place: Place<'_>,
        password: String,
        hash: String,
        deadline: Instant,
    ) -> Result<Option<Right>, Error> {
        let checked = self.run(place, deadline, move |memory| {
            let hash = PasswordHash::new(&hash).map_err(|error| broken("a stored password hash", error))?;
            let normalized = normalize(&password);
            let mut fitting = None;
            for spelling in spellings(password) {
                if memory.verify(&spelling, &hash)? {
                    fitting = Some(spelling);
                    break;
                }
            }
            let Some(spelling) = fitting else { return Ok(None) };
            let is_current = spelling == normalized && !is_weak(&hash);
            let better_hash = if is_current { None } else { Some(memory.hash(&normalized)?) };
            Ok::<_, Unexpected>(Some(Right { better_hash }))
        });
        Ok(checked.await??)
    }

    /// A place in this queue, or a refusal, which is to cost nothing: a caller asks for it before it does anything else.
    pub(crate) fn place(&self, queue: Queue) -> Result<Place<'_>, Error> {
        if let Queue::Known(user_id) = queue
            && let Some(place) = self.known.place(user_id)
        {
            return Ok(Place::Known { _place: place });
        }
        let place = self.anybody.try_acquire().map_err(|_| Error::PasswordChecksBusy)?;
        Ok(Place::Anybody { _place: place })
    }

    /// A caller that leaves gives up its place in the queue, and nothing is hashed for it.
    async fn run<T: Send + 'static>(
        &self,
        place: Place<'_>,
        deadline: Instant,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let slot = timeout_at(deadline, async {
            let _turn = if matches!(place, Place::Anybody { .. }) { Some(self.turn.acquire().await?) } else { None };
            self.slots.clone().acquire_owned().await
        });
        let slot = slot.await.map_err(|_| chassis::Error::DeadlineExceeded)?;
        let slot = slot.map_err(|error| broken("the password slots", error))?;
        let (send, done) = oneshot::channel();
        self.threads.run(move |memory| {
            let outcome = work(memory);
            drop(slot);
            // The caller may have left.
            let _ = send.send(outcome);
        });
        Ok(done.await.map_err(|error| broken("hashing a password", error))?)
    }
}

/// The queue of the known.
struct Known {
    places: Semaphore,
    /// How many places each account has now.
    taken: Mutex<HashMap<UserId, usize>>,
}

impl Known {
    fn place(&self, user_id: UserId) -> Option<KnownPlace<'_>> {
        let place = self.places.try_acquire().ok()?;
        let mut all = self.taken.lock().expect("nothing panics while it holds this lock");
        let taken = all.entry(user_id).or_default();
        if *taken == KNOWN_PER_ACCOUNT {
            return None;
        }
        *taken += 1;
        Some(KnownPlace { of: self, user_id, _place: place })
    }
}

/// A place in a queue, until this is dropped.
pub(crate) enum Place<'a> {
    Known { _place: KnownPlace<'a> },
    Anybody { _place: SemaphorePermit<'a> },
}

pub(crate) struct KnownPlace<'a> {
    of: &'a Known,
    user_id: UserId,
    _place: SemaphorePermit<'a>,
}

impl Drop for KnownPlace<'_> {
    fn drop(&mut self) {
        let mut all = self.of.taken.lock().expect("nothing panics while it holds this lock");
        if let Entry::Occupied(mut taken) = all.entry(self.user_id) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

/// Whether its parameters are weaker than those of a new hash.
fn is_weak(hash: &PasswordHash) -> bool {
    let (today, algorithm) = (Params::default(), argon2::Algorithm::default().ident());
    Params::try_from(hash).map_or(true, |then| {
        hash.algorithm != algorithm || then.m_cost() < today.m_cost() || then.t_cost() < today.t_cost()
    })
}

fn broken(what: &str, error: impl std::fmt::Display) -> Unexpected {
    Unexpected::Broken(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    impl Passwords {
        /// Each check fails.
        pub(crate) fn without_threads() -> Self {
            Self { threads: Threads::start(0), ..Self::new(1) }
        }

        pub(crate) fn has_place(&self, queue: Queue) -> bool {
            self.place(queue).is_ok()
        }
    }

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

    fn refused(text: &str) -> bool {
        is_common(text, &["lovelace".to_owned(), "ada".to_owned()])
    }

    #[test]
    fn common_passwords_are_refused_and_long_phrases_are_not() {
        for common in [
            "passwordpassword",
            "password1234567",
            "123456789012345",
            "aaaaaaaaaaaaaaaa",
            "qwertyuiopasdfgh",
            "iloveyouiloveyou",
            "letmeinletmeinletmein",
            "lovelacelovelace",
            "soukadalovelace",
            "P@ssw0rdP@ssw0rd",
            &"password".repeat(16),
        ] {
            assert!(prepare(common).is_ok() && refused(common), "{common}");
        }
        for good in [
            "correct horse battery",
            "another long password",
            "caf\u{e9} au lait, bitte",
            "e3b0c44298fc1c149afbf4c8996fb924",
            "\u{6f22}\u{5b57}\u{304b}\u{306a}\u{4ea4}\u{3058}\u{308a}\u{6587}\u{3067}\u{3059}\u{3088}\u{306d}\u{305d}\u{3046}\u{3060}",
        ] {
            assert!(prepare(good).is_ok() && !refused(good), "{good}");
        }
    }

    #[test]
    fn hashes_with_weaker_parameters_are_replaced() {
        let is_weak_text = |hash: &str| is_weak(&PasswordHash::new(hash).expect("a hash"));
        assert!(
            !is_weak_text(NO_PASSWORD)
                && !is_weak_text(&Memory::default().hash("correct horse battery").expect("hashed"))
        );
        for (today, then) in [("m=19456", "m=8192"), ("t=2", "t=1"), ("argon2id", "argon2i")] {
            assert!(is_weak_text(&NO_PASSWORD.replace(today, then)), "{then}");
        }
        assert!(!is_weak_text(&NO_PASSWORD.replace("m=19456", "m=65536")), "stronger ones stay");
    }

    /// Not even with tokens of its own devices.
    #[test]
    fn one_account_takes_few_places_of_known_devices() {
        let passwords = Passwords::new(1);
        let [ada, bob] = [1, 2].map(|it| Queue::Known(UserId::new(Uuid::from_u128(it))));
        let is_known = |place: &Result<Place<'_>, Error>| matches!(place, Ok(Place::Known { .. }));
        let mut of_ada: Vec<_> = (0..KNOWN + ANYBODY).map(|_| passwords.place(ada)).collect();
        assert_eq!(of_ada.iter().filter(|place| is_known(place)).count(), KNOWN_PER_ACCOUNT);
        assert_eq!(of_ada.iter().filter(|place| place.is_ok()).count(), KNOWN_PER_ACCOUNT + ANYBODY);
        assert!(is_known(&passwords.place(bob)) && !passwords.has_place(Queue::Anybody));
        drop(of_ada.remove(0));
        assert!(is_known(&passwords.place(ada)), "it was given back");
        drop(of_ada);
        assert!(passwords.known.taken.lock().expect("not poisoned").is_empty(), "nothing is kept of an account");
    }

    #[tokio::test]
    async fn a_caller_that_leaves_gives_up_its_place_in_the_queue() {
        let passwords = Passwords::new(1);
        let busy = passwords.slots.clone().acquire_owned().await.expect("a slot");
        let password = NewPassword::parse("correct horse battery", "password").expect("long enough");
        let soon = Instant::now() + Duration::from_millis(20);
        let left = passwords.hash_new(password, soon).await.expect_err("the only slot is busy");
        assert!(matches!(left, Error::Chassis(chassis::Error::DeadlineExceeded)), "{left:?}");
        assert_eq!(passwords.anybody.available_permits(), ANYBODY);
        drop(busy);
    }
}
