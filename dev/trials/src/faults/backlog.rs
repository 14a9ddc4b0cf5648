//! What is still to be done, and whether it becomes less. How long that takes is the machine's matter: only what stands
//! still for longer than the product's own timeouts explain is wrong.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::LOOK_AGAIN;
use super::cluster::Cluster;
use super::control::Control;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Orders that have not settled, or are not paid although they should be.
    pub(crate) orders: i64,
    /// Those of them that are not paid in a way that takes its time whatever happens.
    pub(crate) prompt_orders: i64,
    /// Reservations of stock for orders that may still end either way.
    pub(crate) held: i64,
    /// Payments that are not where they should be.
    pub(crate) payments: i64,
    /// Events that are not published.
    pub(crate) unpublished: i64,
    /// All events of all orders so far: whatever happens to an order, there are more of them.
    pub(crate) events: i64,
}

impl Backlog {
    /// All orders have settled but those that are slow whatever happens, and those that were `left` over before.
    fn is_worked_off(&self, left: &Self) -> bool {
        self.prompt_orders <= left.prompt_orders
            && self.unpublished <= left.unpublished
            // What was held for an order that has settled was let go.
            && self.held - left.held <= self.orders
    }

    fn is_empty(&self) -> bool {
        Self { events: 0, ..*self } == Self::default()
    }
}

/// Waits, while no customer buys, until a backlog is worked off. Fails when it stands still.
pub(crate) async fn work_off(cluster: &Cluster, control: &Control, patience: Duration, left: &Backlog) -> Result<()> {
    wait(cluster, control, patience, |backlog| backlog.is_worked_off(left)).await
}

/// Waits, after the last purchase, until nothing is under way. Fails when what is left stands still.
pub(crate) async fn rest(cluster: &Cluster, control: &Control, patience: Duration) -> Result<()> {
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

/// When a count, or a set of counts, last changed.
pub(crate) struct Progress<T> {
    patience: Duration,
    last: Option<(Instant, T)>,
}

impl<T: PartialEq + std::fmt::Debug> Progress<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, last: None }
    }

    /// Fails when it is the same for too long. Time in which the machine stalled does not count.
    pub(crate) fn check(&mut self, seen: T, control: &Control) -> Result<()> {
        let now = Instant::now();
        match &self.last {
            Some((since, last)) if *last == seen => {
                let stood = (now - *since).saturating_sub(control.stalled(*since, now));
                ensure!(stood <= self.patience, "nothing moved for {stood:.1?}, and this is left: {seen:?}");
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
    fn a_backlog_is_worked_off_when_only_slow_orders_and_what_was_left_before_remain() {
        let left = Backlog { orders: 2, prompt_orders: 1, held: 1, unpublished: 3, ..Backlog::default() };
        let slow = Backlog { orders: 5, prompt_orders: 1, held: 4, unpublished: 3, payments: 9, events: 100 };
        assert!(slow.is_worked_off(&left) && !slow.is_worked_off(&Backlog::default()));
        assert!(!Backlog { prompt_orders: 2, ..slow }.is_worked_off(&left));
        assert!(!Backlog { held: 7, ..slow }.is_worked_off(&left), "something is held for an order that has settled");
        assert!(!Backlog { unpublished: 4, ..slow }.is_worked_off(&left));
        assert!(!slow.is_empty() && Backlog { events: 100, ..Backlog::default() }.is_empty());
    }

    #[tokio::test]
    async fn what_stays_the_same_for_longer_than_the_patience_fails_but_for_pauses_of_the_machine() {
        let patience = Duration::from_secs(30);
        let since = Instant::now().checked_sub(patience * 2).expect("the machine runs for longer");
        let stands = |seen| Progress { patience, last: Some((since, seen)) };
        let (quiet, stopped) =
            (Control::that_saw(vec![]), Control::that_saw(vec![(since, since + Duration::from_secs(31))]));
        assert!(stands(7).check(6, &quiet).is_ok(), "it moved");
        assert!(stands(7).check(7, &stopped).is_ok(), "it could not move");
        let error = stands(7).check(7, &quiet).expect_err("it stands still").to_string();
        assert!(error.starts_with("nothing moved for 60.0") && error.ends_with("left: 7"), "{error}");
    }
}
