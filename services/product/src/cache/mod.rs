//! Reads of single products. Redis holds what was read, for all replicas; without it, a bounded number of queries does the same
//! work, so that reads are slower then, and nothing else.
//!
//! A reader never gets a product that is older than [`TRUSTED_FOR`]. A change is written to Redis right after its transaction; and
//! since that write may fail, and the previous release makes none, every replica copies the changes of the last seconds from the
//! database to Redis several times a second (`sync.rs`), and reads Redis only while that works. A change leaves its version in
//! Redis, so that what was read before it is not stored after it.

mod entry;
mod redis;
mod sync;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chassis::boot::metrics::{self, ByOutcome};
use chassis::{Error, Unexpected};
use contracts::souk::product::v1::Product as Message;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sqlx::PgPool;
use tokio::sync::{OnceCell, Semaphore};

use crate::product::{Product, ProductId};
pub(crate) use redis::Shared;
pub(crate) use sync::{SYNC_EVERY, sync};

/// How long after its last copy of changes a replica reads Redis. A change is seen everywhere within this time.
const TRUSTED_FOR: Duration = Duration::from_millis(900);
/// How long a read waits for its query to begin.
const QUERY_BEGINS_WITHIN: Duration = Duration::from_secs(2);

static READS: LazyLock<Family<ByOutcome, Counter>> = LazyLock::new(|| {
    let help =
        "Reads of single products: hit and absent were answered by Redis, miss, bypass and error by the database";
    metrics::register("product_reads", help, Family::default())
});

/// None: there is no such product.
type Found<T> = Option<T>;

/// A failed read that several callers waited for.
#[derive(Debug, Clone)]
enum Failed {
    ForNow,
    ForGood(String),
}

type Flight = Arc<(Instant, OnceCell<Result<Found<Product>, Failed>>)>;

/// How old a read of the database is at most that other callers join: the product may have changed since at another replica.
const JOINED_WITHIN: Duration = Duration::from_millis(500);

pub(crate) struct Cache {
    /// None: the cache is turned off.
    shared: Option<Shared>,
    /// Reads of the database that are under way: one per product.
    flights: Mutex<HashMap<ProductId, Flight>>,
    joined_within: Duration,
    queries: Semaphore,
}

impl Cache {
    /// `queries`: at once for what Redis does not have. Quotes and updates have the other sessions.
    pub(crate) fn new(shared: Option<Shared>, queries: usize) -> Self {
        Self { shared, flights: Mutex::default(), joined_within: JOINED_WITHIN, queries: Semaphore::new(queries) }
    }

    #[cfg(test)]
    pub(crate) fn joined_within(self, joined_within: Duration) -> Self {
        Self { joined_within, ..self }
    }

    pub(crate) async fn get(&self, db: &PgPool, product_id: ProductId) -> Result<Found<Message>, Error> {
        let Some((shared, epoch)) = self.trusted() else {
            count("bypass");
            return self.read(db, product_id, None).await;
        };
        match shared.get(product_id).await {
            Ok(Some(found)) => {
                count(if found.is_some() { "hit" } else { "absent" });
                Ok(found)
            }
            Ok(None) => {
                count("miss");
                self.read(db, product_id, Some(epoch)).await
            }
            // Redis' failures are counted there, by problem.
            Err(_) => {
                count("error");
                self.read(db, product_id, None).await
            }
        }
    }

    /// To be called when a change was committed: reads that begin now get this version or a later one.
    pub(crate) async fn changed(&self, product_id: ProductId, version: i64) {
        // A read that is under way may have the older version.
        self.flights().remove(&product_id);
        if let Some(shared) = &self.shared {
            // If it fails, the copy of changes repeats it.
            let _ = shared.invalidate(&[(product_id, version)]).await;
        }
    }

    fn trusted(&self) -> Option<(&Shared, i64)> {
        let shared = self.shared.as_ref()?;
        Some((shared, shared.trusted_epoch()?))
    }

    /// Reads the database, once for all callers that want this product now. `epoch`: that of Redis, if it shall have the outcome.
    async fn read(&self, db: &PgPool, product_id: ProductId, epoch: Option<i64>) -> Result<Found<Message>, Error> {
        let begun = Instant::now();
        let flight = {
            let (mut flights, new) = (self.flights(), || Arc::new((begun, OnceCell::new())));
            let flight = flights.entry(product_id).or_insert_with(new);
            if begun.duration_since(flight.0) > self.joined_within {
                *flight = new();
            }
            flight.clone()
        };
        // Only of the caller whose query is made.
        let mut outcome = None;
        let query = async {
            let found = self.query(db, product_id).await;
            self.land(product_id, &flight);
            let shared = match &found {
                Ok(found) => Ok(found.clone()),
                Err(error) => Err(Failed::from(error)),
            };
            outcome = Some(found);
            shared
        };
        let shared = flight.1.get_or_init(|| query).await.clone();
        let found = match (outcome, shared) {
            (Some(found), _) => {
                let found = found?;
                if let (Some(shared), Some(epoch)) = (&self.shared, epoch) {
                    shared.fill(epoch, begun, product_id, found.as_ref()).await;
                }
                found
            }
            (None, Ok(found)) => found,
            (None, Err(Failed::ForNow)) => return Err(Error::Overloaded),
            (None, Err(Failed::ForGood(why))) => return Err(Unexpected::Broken(why).into()),
        };
        Ok(found.map(Product::into_proto))
    }

    async fn query(&self, db: &PgPool, product_id: ProductId) -> Result<Found<Product>, Error> {
        let permit = tokio::time::timeout(QUERY_BEGINS_WITHIN, self.queries.acquire()).await;
        let _permit = permit.map_err(|_| Error::Overloaded)?.expect("the semaphore is never closed");
        Ok(Product::find_all(db, &[product_id]).await?.pop())
    }

    /// Reads that begin later query again.
    fn land(&self, product_id: ProductId, flight: &Flight) {
        let mut flights = self.flights();
        if flights.get(&product_id).is_some_and(|it| Arc::ptr_eq(it, flight)) {
            flights.remove(&product_id);
        }
    }

    /// Whether Redis has the product.
    #[cfg(test)]
    pub(crate) async fn shared_entry(&self, product_id: ProductId) -> Option<Found<Message>> {
        self.shared.as_ref()?.get(product_id).await.ok()?
    }

    /// How many callers wait for reads of the database.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        // The map has one of each.
        self.flights().values().map(|flight| Arc::strong_count(flight) - 1).sum()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ProductId, Flight>> {
        self.flights.lock().expect("nothing panics while it holds this lock")
    }
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        match error {
            Error::Unexpected(unexpected) if !unexpected.will_pass() => Self::ForGood(unexpected.to_string()),
            _ => Self::ForNow,
        }
    }
}

fn count(outcome: &str) {
    READS.get_or_create(&ByOutcome::new(outcome)).inc();
}
