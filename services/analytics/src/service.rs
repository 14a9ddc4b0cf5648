//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;

use chassis::boot::TimeZone;
use chassis::event::TopicSlot;
use chassis::rpc::stream::Streams;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::analytics::v1::analytics_service_server::AnalyticsServiceServer;
use sqlx::PgPool;

use crate::lag::{self, Lag};
use crate::rebuild::{self, Rebuild};
use crate::{on_event, retired};

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) db: PgPool,
    /// Sessions for reports, which may take seconds: a few of their own, so that no event waits behind them.
    pub(crate) reports: PgPool,
    pub(crate) clock: Clock,
    /// Where the days of the shop begin.
    pub(crate) time_zone: TimeZone,
    /// For exports.
    pub(crate) streams: Streams,
    pub(crate) lag: Arc<Lag>,
    pub(crate) rebuild: Arc<Rebuild>,
}

/// A pool for reports, of at most so many sessions, beside `db`.
pub(crate) fn pool_of_reports(db: &PgPool, connections: u32) -> PgPool {
    db.options().clone().max_connections(connections).connect_lazy_with(db.connect_options().as_ref().clone())
}

/// `topic` is the slot of the service's topic.
pub(crate) fn role(service: &Arc<Service>, topic: &TopicSlot, context: &Context) -> Role {
    Role::new(roster::ANALYTICS, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(AnalyticsServiceServer::from_arc(service.clone()))
        .consume(&service.db, on_event::TOPICS, service)
        .read_again(on_event::TOPICS[0], topic)
        .job(Job::new("analytics.record_lag", lag::EVERY, service, lag::record))
        .job(Job::new("analytics.rebuild", rebuild::EVERY, service, rebuild::rebuild))
        .job(Job::new("analytics.delete_retired", retired::EVERY, service, retired::delete))
}
