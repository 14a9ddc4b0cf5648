//! What the service is made of, and what it serves.

use std::sync::Arc;

use chassis::{Clock, Context, Role};
use contracts::souk::product::v1::product_service_server::ProductServiceServer;
use sqlx::PgPool;

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
}

pub(crate) fn role(service: &Arc<Service>, context: &Context) -> Role {
    Role::new(roster::PRODUCT, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(ProductServiceServer::from_arc(service.clone()))
}
