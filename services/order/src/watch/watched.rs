//! Which orders are watched at this replica, by whom, and up to which version each watcher has seen its order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chassis::Wake;
use contracts::souk::order::v1::watch_order_response::Update;
use contracts::souk::order::v1::{Order, OrderChange, OrderEventEntry, WatchOrderResponse};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::ids::OrderId;

/// Updates that wait for one watcher. A slower one gets the rest later: they are read again.
const WAITING: usize = 8;
/// How often versions are compared, in case a notification was lost.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Where no replica watched, the next notification is after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// Which replica this is, in notifications.
    pub(crate) replica: Uuid,
    shared: Arc<Mutex<Shared>>,
    /// Wakes the job that reads changes.
    pub(crate) wake: Wake,
    /// The number of watchers.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Shared {
    orders: HashMap<OrderId, Vec<Watcher>>,
    /// Watched orders whose events are to be read.
    due: HashSet<OrderId>,
    compared: Option<Instant>,
    /// When a notification found that no replica watches.
    nobody_watched: Option<Instant>,
    next_id: u64,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    /// The version that it has seen; none if it waits for the state.
    seen: Option<i64>,
    updates: mpsc::Sender<Arc<WatchOrderResponse>>,
}

/// One version of an order: what happened, and the order after it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) event: OrderEventEntry,
    pub(crate) order: Order,
}

impl Default for Watched {
    fn default() -> Self {
        Self { replica: Uuid::now_v7(), shared: Arc::default(), wake: Wake::default(), count: watch::Sender::new(0) }
    }
}

impl Watched {
    /// Begins to watch an order, after a version or with its state. Whatever is committed from now on is not missed, as the
    /// order's events are read after this.
    pub(crate) fn watch(&self, order_id: OrderId, seen: Option<i64>) -> Watch {
        let (updates, receiver) = mpsc::channel(WAITING);
        let mut shared = self.lock();
        shared.next_id += 1;
        let id = shared.next_id;
        shared.orders.entry(order_id).or_default().push(Watcher { id, seen, updates });
        shared.due.insert(order_id);
        drop(shared);
        self.count.send_modify(|count| *count += 1);
        self.wake.wake();
        Watch { updates: receiver, watched: self.clone(), order_id, id }
    }

    /// Orders that may have changed.
    pub(crate) fn changed(&self, order_ids: impl IntoIterator<Item = OrderId>) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let watched = order_ids.into_iter().filter(|id| shared.orders.contains_key(id));
        let before = shared.due.len();
        shared.due.extend(watched);
        if shared.due.len() > before {
            self.wake.wake();
        }
    }

    /// Whether versions are to be compared now.
    pub(crate) fn must_compare(&self) -> bool {
        let mut shared = self.lock();
        let is_due = shared.compared.is_none_or(|at| at.elapsed() >= COMPARE_EVERY);
        if is_due {
            shared.compared = Some(Instant::now());
        }
        is_due
    }

    pub(crate) fn a_replica_may_watch(&self) -> bool {
        self.lock().nobody_watched.is_none_or(|at| at.elapsed() >= ASK_AGAIN)
    }

    pub(crate) fn note_nobody_watches(&self) {
        self.lock().nobody_watched = Some(Instant::now());
    }

    /// As if a second had passed.
    #[cfg(test)]
    pub(crate) fn compare_now(&self) {
        self.lock().compared = None;
    }

    /// As if no second would pass, and another replica watched.
    #[cfg(test)]
    pub(crate) fn compare_no_more(&self) {
        let mut shared = self.lock();
        shared.compared = Some(Instant::now() + Duration::from_secs(3_600));
        shared.nobody_watched = None;
    }

    /// All orders that are watched.
    pub(crate) fn all(&self) -> Vec<OrderId> {
        self.lock().orders.keys().copied().collect()
    }

    /// Makes those orders due whose version some watcher has not seen.
    pub(crate) fn compare(&self, versions: impl IntoIterator<Item = (OrderId, i64)>) {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let behind = versions.into_iter().filter(|(order_id, version)| {
            let watchers = shared.orders.get(order_id);
            watchers.is_some_and(|watchers| watchers.iter().any(|it| it.seen.is_none_or(|seen| seen < *version)))
        });
        shared.due.extend(behind.map(|(order_id, _)| order_id));
    }

    /// At most so many of the orders that are due.
    pub(crate) fn take_due(&self, most: usize) -> Vec<OrderId> {
        let mut shared = self.lock();
        let taken: Vec<_> = shared.due.iter().take(most).copied().collect();
        for order_id in &taken {
            shared.due.remove(order_id);
        }
        taken
    }

    /// Gives each watcher of an order what it has not seen. `history` has all versions.
    pub(crate) fn deliver(&self, order_id: OrderId, history: Vec<Step>) {
        let mut shared = self.lock();
        let Some(watchers) = shared.orders.get_mut(&order_id) else { return };
        let Some(last) = history.last() else { return };
        let state = message(last.order.version, Update::Order(last.order.clone()));
        let oldest = watchers.iter().filter_map(|watcher| watcher.seen).min().unwrap_or(i64::MAX);
        let unseen = history.into_iter().filter(|step| step.event.version > oldest);
        let changes: BTreeMap<_, _> = unseen
            .map(|Step { event, order }| {
                let version = event.version;
                (version, message(version, Update::Change(OrderChange { event: Some(event), order: Some(order) })))
            })
            .collect();
        for watcher in watchers {
            watcher.take(&state, &changes);
        }
    }

    /// Ends the streams of an order that cannot be read.
    pub(crate) fn give_up(&self, order_id: OrderId) {
        for watcher in self.lock().orders.get_mut(&order_id).into_iter().flatten() {
            let (closed, _) = mpsc::channel(1);
            watcher.updates = closed;
        }
    }

    /// Waits until the number of watchers is or is not zero.
    pub(crate) async fn until(&self, is_wanted: impl FnMut(&usize) -> bool) {
        self.count.subscribe().wait_for(is_wanted).await.expect("we hold the sender");
    }

    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics while it holds this lock")
    }
}

fn message(version: i64, update: Update) -> Arc<WatchOrderResponse> {
    Arc::new(WatchOrderResponse { version, update: Some(update) })
}

impl Watcher {
    /// If its queue is full, what follows is delivered later: it is still behind.
    fn take(&mut self, state: &Arc<WatchOrderResponse>, changes: &BTreeMap<i64, Arc<WatchOrderResponse>>) {
        let Some(seen) = self.seen else {
            if self.updates.try_send(state.clone()).is_ok() {
                self.seen = Some(state.version);
            }
            return;
        };
        for (version, change) in changes.range(seen + 1..) {
            if self.updates.try_send(change.clone()).is_err() {
                return;
            }
            self.seen = Some(*version);
        }
    }
}

/// The updates of one watcher, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    updates: mpsc::Receiver<Arc<WatchOrderResponse>>,
    watched: Watched,
    order_id: OrderId,
    id: u64,
}

impl Watch {
    /// None if the order cannot be read.
    pub(crate) async fn next(&mut self) -> Option<WatchOrderResponse> {
        self.updates.recv().await.map(Arc::unwrap_or_clone)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut shared = self.watched.lock();
        if let Some(watchers) = shared.orders.get_mut(&self.order_id) {
            watchers.retain(|watcher| watcher.id != self.id);
            if watchers.is_empty() {
                shared.orders.remove(&self.order_id);
                shared.due.remove(&self.order_id);
            }
        }
        drop(shared);
        self.watched.count.send_modify(|count| *count -= 1);
    }
}
