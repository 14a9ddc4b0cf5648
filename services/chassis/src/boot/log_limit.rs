//! Bounds the lines of one place in the code that callers can make it log: a flood of refusals must not fill the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct LogLimit {
    per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, window: Mutex::new(Window { began: None, lines: 0, left_out: 0 }) }
    }

    /// Whether a line may be logged now, and how many were left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().expect("nothing panics while it holds this lock");
        if window.began.is_none_or(|began| now.duration_since(began) >= SECOND) {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines >= self.per_second {
            window.left_out = window.left_out.saturating_add(1);
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_of_a_second_are_counted_and_left_out() {
        let (limit, now) = (LogLimit::new(2), Instant::now());
        assert_eq!([0; 5].map(|_| limit.admit_at(now)), [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.admit_at(now + SECOND), Some(3), "the next line tells it");
        assert_eq!(limit.admit_at(now + SECOND), Some(0), "once");
        assert_eq!(limit.admit_at(now + SECOND * 3 / 2), None, "the second began with the first line");
        assert_eq!(limit.admit_at(now + SECOND * 2), Some(1));
    }
}
