//! The backlog of unfinished work, and whether it makes progress. How long that takes depends on the machine: only a backlog
//! that does not change for longer than the product's own timeouts explain is a failure.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::LOOK_AGAIN;
use super::cluster::Cluster;
use super::control::Control;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Orders that are neither paid nor ended.
    pub(crate) orders: i64,
    /// Those of them whose payment method is not slow by itself.
    pub(crate) prompt_orders: i64,
    /// Reservations that are neither sold nor released.
    pub(crate) held: i64,
    /// Payments that have not reached their goal.
    pub(crate) payments: i64,
    /// Notifications that are not delivered.
    pub(crate) notifications: i64,
    /// Events in outboxes.
    pub(crate) unpublished: i64,
    /// All events of all orders so far, which shows progress.
    pub(crate) events: i64,
}

impl Backlog {
    /// All orders are paid, or have ended, except slow ones and those that were `left` before.
    fn is_drained(&self, left: &Self) -> bool {
        self.prompt_orders <= left.prompt_orders
            && self.unpublished <= left.unpublished
            && self.notifications <= left.notifications
            // These hold no stock.
            && self.held - left.held <= self.orders
    }

    fn is_empty(&self) -> bool {
        Self { events: 0, ..*self } == Self::default()
    }
}

/// Waits, while no customer buys, until the backlog is drained. Fails when it makes no progress.
pub(crate) async fn drain(cluster: &Cluster, control: &Control, patience: Duration, left: &Backlog) -> Result<()> {
    wait(cluster, control, patience, |backlog| backlog.is_drained(left)).await
}

/// Waits, after the last purchase, until the backlog is empty. Fails when it makes no progress.
pub(crate) async fn drain_all(cluster: &Cluster, control: &Control, patience: Duration) -> Result<()> {
    wait(cluster, control, patience, Backlog::is_empty).await
}

async fn wait(
    cluster: &Cluster,
    control: &Control,
    patience: Duration,
    is_done: impl Fn(&Backlog) -> bool,
) -> Result<()> {
    let mut progress = Progress::new(patience);
    loop {
        let backlog = cluster.backlog().await?;
        if is_done(&backlog) {
            return Ok(());
        }
        progress.check(backlog, control)?;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// When a value last changed.
pub(crate) struct Progress<T> {
    patience: Duration,
    last: Option<(Instant, T)>,
}

impl<T: PartialEq + std::fmt::Debug> Progress<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, last: None }
    }

    /// Fails when the value did not change for too long. Time in which the machine stalled does not count.
    pub(crate) fn check(&mut self, seen: T, control: &Control) -> Result<()> {
        let now = Instant::now();
        match &self.last {
            Some((since, last)) if *last == seen => {
                let stood = (now - *since).saturating_sub(control.stalled(*since, now));
                ensure!(stood <= self.patience, "no progress for {stood:.1?}, this is left: {seen:?}");
            }
            _ => self.last = Some((now, seen)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_drained_when_only_slow_orders_and_what_was_left_before_remain() {
        let left = Backlog { orders: 2, prompt_orders: 1, held: 1, unpublished: 3, ..Backlog::default() };
        let slow = Backlog {
            orders: 5,
            prompt_orders: 1,
            held: 4,
            unpublished: 3,
            payments: 9,
            events: 100,
            notifications: 0,
        };
        assert!(slow.is_drained(&left) && !slow.is_drained(&Backlog::default()));
        assert!(!Backlog { prompt_orders: 2, ..slow }.is_drained(&left));
        assert!(!Backlog { held: 7, ..slow }.is_drained(&left), "stock is held for a settled order");
        assert!(!Backlog { unpublished: 4, ..slow }.is_drained(&left));
        assert!(!Backlog { notifications: 1, ..slow }.is_drained(&left));
        assert!(!slow.is_empty() && Backlog { events: 100, ..Backlog::default() }.is_empty());
    }

    #[tokio::test]
    async fn a_lack_of_progress_fails_unless_the_machine_stalled() {
        let patience = Duration::from_secs(30);
        let since = Instant::now().checked_sub(patience * 2).expect("the machine runs for longer");
        let stands = |seen| Progress { patience, last: Some((since, seen)) };
        let (quiet, stopped) =
            (Control::that_saw(vec![]), Control::that_saw(vec![(since, since + Duration::from_secs(31))]));
        assert!(stands(7).check(6, &quiet).is_ok(), "it changed");
        assert!(stands(7).check(7, &stopped).is_ok(), "the machine stalled");
        let error = stands(7).check(7, &quiet).expect_err("it did not change").to_string();
        assert!(error.starts_with("no progress for 60.0") && error.ends_with("left: 7"), "{error}");
    }
}
