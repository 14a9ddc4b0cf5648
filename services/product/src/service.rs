//! What the service is made of, and what it serves.

use std::sync::Arc;

use chassis::{Clock, Context, Job, Role};
use contracts::souk::product::v1::product_service_server::ProductServiceServer;
use sqlx::PgPool;

use crate::cache::{Cache, SYNC_EVERY, sync};

pub(crate) struct Service {
    pub(crate) db: PgPool,
    /// Sessions for lists and searches, which plan each statement for its parameters. They are a few of their own, so that quotes
    /// do not wait behind searches.
    pub(crate) lists: PgPool,
    pub(crate) clock: Clock,
    /// Of single products. Quotes never come from it.
    pub(crate) cache: Cache,
}

/// A pool for lists and searches, of at most so many sessions, beside `db`.
pub(crate) fn pool_of_lists(db: &PgPool, connections: u32) -> PgPool {
    let connect = db.connect_options().as_ref().clone();
    // A search stops after some matches, so a scan of the table may look cheap: until the word is only in its last rows.
    let connect = connect.options([("plan_cache_mode", "force_custom_plan"), ("enable_seqscan", "off")]);
    db.options().clone().max_connections(connections).connect_lazy_with(connect)
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::PRODUCT, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(ProductServiceServer::from_arc(service.clone()))
        .job(Job::new("product.cache", SYNC_EVERY, service, sync))
}
