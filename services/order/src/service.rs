//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::event::Changed;
use chassis::rpc::client;
use chassis::rpc::stream::Streams;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::order::v1::cart_service_server::CartServiceServer;
use contracts::souk::order::v1::order_service_server::OrderServiceServer;
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use sqlx::PgPool;

use crate::watch::{Times, Watched};
use crate::{cart, erase, expire, on_event, stuck, watch};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) products: ProductServiceClient<client::Peer>,
    pub(crate) payment_deadline: Duration,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
    /// Orders of whose events the relay has read.
    pub(crate) changed: Changed,
    pub(crate) watched: Watched,
    pub(crate) watch_times: Times,
    pub(crate) streams: Streams,
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    let listen = {
        let service = service.clone();
        |stop| watch::listen(service, stop)
    };
    Role::new(roster::ORDER, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(OrderServiceServer::from_arc(service.clone()))
        .serve(CartServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .report_changes_to(&service.changed)
        .consume(&service.db, on_event::TOPICS, service)
        .job(Job::new("order.expire", SECOND, service, expire::expire_due))
        .job(Job::new("order.erase_addresses", SECOND, service, erase::erase_addresses))
        .job(Job::new("order.put_back_missed", SECOND * 600, service, cart::put_back_missed))
        .job(Job::new("order.stuck", SECOND * 10, service, stuck::count_stuck))
        .job(Job::new("order.watch", SECOND, service, watch::read_changes).woken_by(service.watched.wake.clone()))
        .job(
            Job::new("order.notify_replicas", SECOND, service, watch::notify_replicas)
                .woken_by(service.changed.wake.clone()),
        )
        .background("the listening for changed orders", listen)
}
