//! The lines that a test logs. One subscriber serves all threads of the process: `tracing` caches for each place that
//! logs whether a subscriber is interested, as the first thread that comes there sees it. With a subscriber for each test, a
//! thread without one would make a place silent for all others.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, Once};

type Lines = Arc<Mutex<Vec<u8>>>;

thread_local! {
    static KEPT: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// Every fixture calls this before anything of ours logs.
pub(crate) fn subscribe() {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Kept).finish();
        tracing::subscriber::set_global_default(lines).expect("a test process has no other subscriber");
    });
}

/// Writes to the lines of the current thread, if it keeps them.
struct Kept;

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        KEPT.with_borrow(|kept| match kept {
            Some(lines) => lines.lock().expect("no panics").write(bytes),
            None => Ok(bytes.len()),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged on the thread of this test, until this is dropped.
pub struct Log(Lines);

impl Log {
    pub fn keep() -> Self {
        subscribe();
        let lines = Lines::default();
        KEPT.set(Some(lines.clone()));
        Self(lines)
    }

    /// The lines with this in them.
    pub fn find(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().expect("no panics");
        String::from_utf8_lossy(&lines).lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        KEPT.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say() {
        tracing::info!("said");
    }

    #[test]
    fn a_line_is_kept_even_if_a_thread_that_keeps_none_was_there_first() {
        let log = Log::keep();
        std::thread::spawn(say).join().expect("it can be said");
        say();
        assert_eq!(log.find("said").len(), 1, "this thread's line, and not the other's");
    }
}
