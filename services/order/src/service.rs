//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::event::Wake;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::order::v1::order_service_server::OrderServiceServer;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;

use crate::{erase, expire, on_event, stuck};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) products: ProductServiceClient<client::Peer>,
    pub(crate) payment_deadline: Duration,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::ORDER, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(OrderServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .consume(&service.db, on_event::TOPICS, service)
        .job(Job::new("order.expire", SECOND, service, expire::expire_due))
        .job(Job::new("order.erase_addresses", SECOND, service, erase::erase_addresses))
        .job(Job::new("order.stuck", SECOND * 10, service, stuck::count_stuck))
}
