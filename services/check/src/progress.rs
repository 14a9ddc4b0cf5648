//! Prints what is being checked on standard error, every few seconds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const INTERVAL: Duration = Duration::from_secs(3);

/// What this process is checking at the moment.
static NOW: Mutex<String> = Mutex::new(String::new());

pub(crate) fn set(what: String) {
    *NOW.lock().unwrap_or_else(PoisonError::into_inner) = what;
}

/// Prints until it is dropped.
pub(crate) struct Progress(JoinHandle<()>);

impl Progress {
    pub(crate) fn begin() -> Self {
        let begun = Instant::now();
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let now = NOW.lock().unwrap_or_else(PoisonError::into_inner).clone();
                eprintln!("souk: {} s: {now}", begun.elapsed().as_secs());
            }
        }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
    }
}
