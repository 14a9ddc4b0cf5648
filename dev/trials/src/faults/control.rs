//! Distinguishes stalls of the machine from failures of the product. The control is a client of the edge, as customers are, whose
//! requests no fault affects, and it writes to the disk, as Postgres does. While it waits longer than the shortest of the
//! product's timeouts, failed requests do not count.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;

use stack::client::Client;

const EVERY: Duration = Duration::from_millis(50);
/// The shortest of the product's timeouts: the edge's for a connection to a replica. A shorter stall causes no failure.
const STALL: Duration = Duration::from_millis(500);
/// The longest timeout of a request: its deadline. A stall can make requests fail for so long.
const EFFECT: Duration = Duration::from_secs(5);
/// A path without a route: the edge itself responds.
const NOWHERE: &str = "/nowhere";

pub(crate) struct Control {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<Result<()>>,
}

struct Seen {
    /// When the current request was due.
    due: Instant,
    /// The times from when a slow request was due until its response.
    stalls: Vec<(Instant, Instant)>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    /// `file` is written repeatedly, if the disk matters.
    pub(crate) fn start(edge: Client, file: Option<PathBuf>) -> Self {
        let seen = Arc::new(Mutex::new(Seen { due: Instant::now(), stalls: vec![] }));
        let task = tokio::spawn(look(edge, file, seen.clone()));
        Self { seen, task }
    }

    /// For how long the machine stalled between these times.
    ///
    /// # Panics
    ///
    /// If the control has ended, as its disk is full: whatever failed from then on would count as a stall.
    pub(crate) fn stalled(&self, from: Instant, to: Instant) -> Duration {
        assert!(!self.task.is_finished(), "the control has ended: its file cannot be written");
        let (seen, now) = (self.seen.lock().expect("the lock is not poisoned"), Instant::now());
        let under_way = (seen.due, now);
        let long = (now.saturating_duration_since(seen.due) > STALL).then_some(&under_way);
        seen.stalls.iter().chain(long).map(|stall| overlap(*stall, (from, to))).sum()
    }

    /// Whether the machine stalled during a request, or so shortly before that the request could fail because of it.
    pub(crate) fn excuses(&self, begun: Instant, ended: Instant) -> bool {
        let from = begun.checked_sub(EFFECT).unwrap_or(begun);
        self.stalled(from, ended) > Duration::ZERO
    }
}

fn overlap(one: (Instant, Instant), other: (Instant, Instant)) -> Duration {
    one.1.min(other.1).saturating_duration_since(one.0.max(other.0))
}

async fn look(edge: Client, file: Option<PathBuf>, seen: Arc<Mutex<Seen>>) -> Result<()> {
    loop {
        let due = Instant::now() + EVERY;
        seen.lock().expect("the lock is not poisoned").due = due;
        tokio::time::sleep(EVERY).await;
        // Any response counts; if the edge is gone, customers' requests fail.
        let _ = edge.get(NOWHERE).await;
        if let Some(file) = file.clone() {
            tokio::task::spawn_blocking(move || write(&file)).await??;
        }
        let now = Instant::now();
        if now.saturating_duration_since(due) > STALL {
            seen.lock().expect("the lock is not poisoned").stalls.push((due, now));
        }
    }
}

fn write(file: &std::path::Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(file)?;
    file.write_all(&[0; 512])?;
    file.sync_data()
}

#[cfg(test)]
impl Control {
    /// A control that has seen these stalls, and sees no more.
    pub(crate) fn that_saw(stalls: Vec<(Instant, Instant)>) -> Self {
        let seen = Arc::new(Mutex::new(Seen { due: Instant::now() + Duration::from_secs(3_600), stalls }));
        Self { seen, task: tokio::spawn(std::future::pending()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stall_excuses_requests_during_it_and_shortly_after() {
        let start = Instant::now() + EFFECT;
        let at = |millis| start + Duration::from_millis(millis);
        let control = Control::that_saw(vec![(at(10_000), at(11_000)), (at(30_000), at(32_000))]);
        assert_eq!(control.stalled(at(10_500), at(31_000)), Duration::from_millis(1_500));
        assert_eq!(control.stalled(at(11_000), at(30_000)), Duration::ZERO);
        assert!(control.excuses(at(9_000), at(10_100)) && control.excuses(at(15_900), at(16_000)));
        assert!(!control.excuses(at(9_000), at(10_000)) && !control.excuses(at(16_000), at(29_000)));
    }

    #[tokio::test]
    async fn a_stall_counts_while_it_lasts() {
        let control = Control::that_saw(vec![]);
        let now = Instant::now();
        let past = |by| now.checked_sub(by).expect("the machine runs for longer");
        control.seen.lock().expect("the lock is not poisoned").due = past(STALL / 2);
        assert_eq!(control.stalled(past(EFFECT), now), Duration::ZERO);
        control.seen.lock().expect("the lock is not poisoned").due = past(STALL * 2);
        assert_eq!(control.stalled(past(EFFECT), now), STALL * 2);
    }
}
