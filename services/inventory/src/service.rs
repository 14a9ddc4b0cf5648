//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::inventory::v1::inventory_service_server::InventoryServiceServer;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use sqlx::PgPool;

use crate::{on_event, stale};

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) orders: OrderServiceClient<client::Peer>,
    pub(crate) hold_limit: Duration,
    /// How many units of one SKU a customer may hold.
    pub(crate) max_units: Option<i64>,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::INVENTORY, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(InventoryServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .consume(&service.db, on_event::TOPICS, service)
        .job(Job::new("inventory.apply_order_states", Duration::from_secs(10), service, stale::apply_order_states))
}
