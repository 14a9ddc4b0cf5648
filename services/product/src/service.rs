//! What the service is made of, and what it serves.

use std::sync::Arc;

use chassis::rpc::client::Peer;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::souk::product::v1::product_service_server::ProductServiceServer;
use sqlx::PgPool;
use tokio::sync::Semaphore;

use crate::cache::{Cache, SYNC_EVERY, Shared, sync};

pub(crate) struct Service {
    pub(crate) db: PgPool,
    /// Sessions for lists and searches, which plan each statement for its parameters. They are a few of their own, so that quotes
    /// do not wait behind searches.
    pub(crate) lists: PgPool,
    /// How many searches are done at once.
    pub(crate) searches: Semaphore,
    /// How many lists are compared with the stock at once.
    pub(crate) comparisons: Semaphore,
    pub(crate) clock: Clock,
    /// Of single products. Quotes never come from it.
    pub(crate) cache: Cache,
    pub(crate) inventory: InventoryServiceClient<Peer>,
}

/// How the sessions of the database are divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sessions {
    pub(crate) db: u32,
    pub(crate) lists: u32,
}

impl Sessions {
    const FEWEST: u32 = 4;

    /// Two fifths are for lists and searches: 4 of 10.
    pub(crate) fn divide(all: u32) -> Result<Self, String> {
        if all < Self::FEWEST {
            return Err(format!("PRODUCT_DATABASE_CONNECTIONS: at least {}", Self::FEWEST));
        }
        let lists = all * 2 / 5;
        Ok(Self { db: all - lists, lists })
    }
}

impl Service {
    /// Half of the sessions of lists are for searches, half for lists that are compared with the stock, which use them for a part of
    /// their time only; and half of the other sessions are for what the cache does not have.
    pub(crate) fn new(
        db: PgPool,
        clock: Clock,
        sessions: Sessions,
        shared: Option<Shared>,
        inventory: InventoryServiceClient<Peer>,
    ) -> Self {
        let lists = pool_of_lists(&db, sessions.lists);
        let half = |sessions: u32| (sessions as usize / 2).max(1);
        let cache = Cache::new(shared, half(sessions.db));
        let [searches, comparisons] = [half(sessions.lists); 2].map(Semaphore::new);
        Self { lists, searches, comparisons, db, clock, cache, inventory }
    }
}

/// A pool for lists and searches, of at most so many sessions, beside `db`.
fn pool_of_lists(db: &PgPool, connections: u32) -> PgPool {
    let connect = db.connect_options().as_ref().clone().options([
        ("plan_cache_mode", "force_custom_plan"),
        // A search stops after some matches, so a scan of the table may look cheap: until the word is only in its last rows.
        ("enable_seqscan", "off"),
        // Anybody may search, and often: a search uses one processor, and not for long.
        ("max_parallel_workers_per_gather", "0"),
        ("statement_timeout", "1s"),
    ]);
    db.options().clone().max_connections(connections).connect_lazy_with(connect)
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::PRODUCT, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(ProductServiceServer::from_arc(service.clone()))
        .job(Job::new("product.cache", SYNC_EVERY, service, sync))
}
