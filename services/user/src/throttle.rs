//! Guessing is throttled per account, over all replicas: after some wrong passwords, each further attempt waits longer.
//!
//! Everybody can use up the attempts of an account, so that alone would lock its owner out. A device that has signed in to the
//! account gets a token of it, and with the token it has attempts of its own. Who has lost all devices resets the password, which
//! gives such a token, too.
//!
//! Without Redis, logins are not throttled here; the limit per address at the edge remains.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::boot::metrics;
use chassis::redis::{Redis, Script};
use hmac::{Hmac, KeyInit, Mac};
use prometheus_client::metrics::counter::Counter;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::account::UserId;
use crate::error::Error;
use crate::session::SessionId;

/// How long attempts are remembered after the last one.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
const DEVICE: usize = 16;

static THROTTLED: LazyLock<Counter> = LazyLock::new(|| {
    metrics::register("user_logins_throttled", "Logins that were refused after wrong passwords", Counter::default())
});
static FAILS: AtomicBool = AtomicBool::new(false);

/// How attempts are slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Attempts without a wait.
    pub(crate) free: u32,
    /// The first wait; each further one is twice as long.
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { free: 20, first: Duration::from_secs(1), longest: Duration::from_secs(15 * 60) }
    }
}

pub(crate) struct Throttle {
    redis: Redis,
    /// Before the keys in Redis.
    prefix: String,
    key: SecretString,
    pace: Pace,
    begin: Script,
    take_back: Script,
    forget: Script,
}

/// The attempt that was admitted last: none was admitted after it if it made others wait.
const TAKE_BACK: &str = "if redis.call('HINCRBY', KEYS[1], 'attempts', -1) < 0 then redis.call('DEL', KEYS[1]) end
  return {redis.call('HDEL', KEYS[1], 'not_before')}";

/// Whose attempts are counted.
#[derive(Debug, Clone)]
pub(crate) struct Attempts(String);

/// One attempt that was admitted.
#[derive(Debug)]
pub(crate) struct Attempt {
    of: Attempts,
    /// Not without Redis.
    is_counted: bool,
}

impl Throttle {
    /// `key`: of which the tokens of devices are made.
    pub(crate) fn new(redis: Redis, prefix: &str, key: SecretString, pace: Pace) -> Self {
        let (begin, forget) = (include_str!("throttle.lua"), "return {redis.call('DEL', KEYS[1])}");
        let (begin, take_back, forget) = (Script::new(begin), Script::new(TAKE_BACK), Script::new(forget));
        Self { redis, prefix: prefix.to_owned(), key, pace, begin, take_back, forget }
    }

    /// The attempts of a login: of the device, if it has a token of this account, else those of everybody. An address without an
    /// account has attempts, too, so that it is not told apart.
    pub(crate) fn attempts(&self, email: &str, user_id: Option<UserId>, device: Option<[u8; DEVICE]>) -> Attempts {
        let whose = match (user_id, device) {
            (Some(user_id), Some(device)) => format!("{user_id}:{}", URL_SAFE_NO_PAD.encode(device)),
            (Some(user_id), None) => user_id.to_string(),
            (None, _) => URL_SAFE_NO_PAD.encode(Sha256::digest(email)),
        };
        Attempts(format!("{}:{whose}", self.prefix))
    }

    /// The attempts to change the password within a session, which a thief of the session makes.
    pub(crate) fn attempts_in_session(&self, user_id: UserId, session_id: SessionId) -> Attempts {
        Attempts(format!("{}:{user_id}:{session_id}", self.prefix))
    }

    /// Counts an attempt, before its password is checked, as it may be one of many at once.
    pub(crate) async fn begin(&self, attempts: &Attempts) -> Result<Attempt, Error> {
        let Pace { free, first, longest } = self.pace;
        let milliseconds = [first, longest, REMEMBERED].map(|time| time.as_millis().to_string());
        let arguments = [vec![free.to_string()], milliseconds.to_vec()].concat();
        let outcome = self.redis.run_script(&self.begin, vec![attempts.0.clone()], arguments).await;
        match outcome.as_deref() {
            Ok([wait, ..]) if *wait > 0 => {
                THROTTLED.inc();
                Err(Error::LoginThrottled { wait: Duration::from_millis(wait.unsigned_abs()) })
            }
            Ok(_) => {
                FAILS.store(false, Ordering::Relaxed);
                Ok(Attempt { of: attempts.clone(), is_counted: true })
            }
            Err(error) => {
                if !FAILS.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "logins are not throttled per account until Redis responds");
                }
                Ok(Attempt { of: attempts.clone(), is_counted: false })
            }
        }
    }

    /// The password was not checked in time, as many are being checked.
    pub(crate) async fn take_back(&self, attempt: Attempt) {
        if attempt.is_counted {
            // If it fails, the attempt counts, and Redis counts the failure.
            let _ = self.redis.run_script(&self.take_back, vec![attempt.of.0], vec![]).await;
        }
    }

    /// The password was right: all attempts are forgotten.
    pub(crate) async fn succeeded(&self, attempt: Attempt) {
        // If it fails, later attempts wait, and Redis counts the failure.
        let _ = self.redis.run_script(&self.forget, vec![attempt.of.0], vec![]).await;
    }

    /// A token that shows that a device has signed in to this account. It is valid until the password is replaced.
    pub(crate) fn device_token(&self, user_id: UserId, password_version: i64, device: [u8; DEVICE]) -> String {
        let mac = self.device_mac(user_id, password_version, &device).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&device[..], &mac[..]].concat())
    }

    /// The device, if the token is one of this account.
    pub(crate) fn device(&self, user_id: UserId, password_version: i64, token: &str) -> Option<[u8; DEVICE]> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (device, mac) = bytes.split_at_checked(DEVICE)?;
        self.device_mac(user_id, password_version, device).verify_slice(mac).ok()?;
        device.try_into().ok()
    }

    fn device_mac(&self, user_id: UserId, password_version: i64, device: &[u8]) -> Hmac<Sha256> {
        let key = self.key.expose_secret().as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(b"souk device of an account");
        mac.update(user_id.0.as_bytes());
        mac.update(&password_version.to_be_bytes());
        mac.update(device);
        mac
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::tests::{PACE, throttle};

    impl Throttle {
        /// As if the wait were over.
        async fn pass_time(&self, attempts: &Attempts) {
            let script = Script::new("return {redis.call('HSET', KEYS[1], 'not_before', 0)}");
            self.redis.run_script(&script, vec![attempts.0.clone()], vec![]).await.expect("Redis is there");
        }

        /// How long an attempt has to wait, in whole seconds.
        async fn wait(&self, attempts: &Attempts) -> u64 {
            let Err(Error::LoginThrottled { wait }) = self.begin(attempts).await else { panic!("it was admitted") };
            // It began a moment ago.
            wait.as_secs().next_multiple_of(100)
        }
    }

    /// Replicas count together, and nobody gets more attempts by making them at once.
    #[tokio::test]
    async fn attempts_at_once_are_counted_exactly() {
        let throttle = Arc::new(throttle().await);
        let attempts = throttle.attempts("ada@example.com", None, None);
        let mut crowd = JoinSet::new();
        for _ in 0..40 {
            let (throttle, attempts) = (throttle.clone(), attempts.clone());
            crowd.spawn(async move { throttle.begin(&attempts).await.is_ok() });
        }
        let admitted = crowd.join_all().await.into_iter().filter(|it| *it).count();
        assert_eq!(admitted as u32, PACE.free);
    }

    #[tokio::test]
    async fn each_wait_is_twice_as_long_up_to_the_longest() {
        let throttle = throttle().await;
        let attempts = throttle.attempts("ada@example.com", None, None);
        for _ in 0..PACE.free {
            throttle.begin(&attempts).await.expect("without a wait");
        }
        let mut last = None;
        for wait in [600, 1_200, 2_000, 2_000] {
            assert_eq!(throttle.wait(&attempts).await, wait);
            assert_eq!(throttle.wait(&attempts).await, wait, "an attempt that comes too early does not count");
            throttle.pass_time(&attempts).await;
            last = Some(throttle.begin(&attempts).await.expect("the wait is over"));
        }
        throttle.take_back(last.expect("there were some")).await;
        let last = throttle.begin(&attempts).await.expect("in place of the one that was taken back");
        assert_eq!(throttle.wait(&attempts).await, 2_000);
        throttle.succeeded(last).await;
        for _ in 0..PACE.free {
            throttle.begin(&attempts).await.expect("as at first");
        }
        assert_eq!(throttle.wait(&attempts).await, 600);
    }

    /// Nobody is refused because Redis is away.
    #[tokio::test]
    async fn without_redis_nobody_is_throttled() {
        let config = chassis::redis::Config {
            url: "redis://127.0.0.1:1".into(),
            password_file: None,
            timeout: Duration::from_millis(10),
        };
        let redis = Redis::new(&config).expect("a good URL");
        let throttle = Throttle::new(redis, "souk:test", "a key".into(), PACE);
        let attempts = throttle.attempts("ada@example.com", None, None);
        for _ in 0..2 * PACE.free {
            let attempt = throttle.begin(&attempts).await.expect("it is admitted");
            assert!(!attempt.is_counted, "so it is not taken back from the count of others");
        }
    }
}
