//! The service, and its role: what it serves and consumes, and its jobs.

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::payment::v1::payment_service_server::PaymentServiceServer;
use secrecy::SecretString;
use sqlx::PgPool;

use crate::stripe::Stripe;
use crate::{drive, on_event, reconcile, stale, webhook};

const SECOND: Duration = Duration::from_secs(1);
/// How many payments a replica compares at once at most. How many per second is a rate that all replicas share.
const MAX_COMPARISONS: usize = 4;

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) provider: Stripe,
    pub(crate) webhook_secret: Option<SecretString>,
    pub(crate) orders: OrderServiceClient<client::Peer>,
    /// How long a worker has for one payment: as long as three calls may take and wait. A worker that needs more may lose its
    /// lease: the next one reads the outcome from the provider.
    pub(crate) lease: Duration,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
    /// Wakes a worker that drives payments.
    pub(crate) work: Wake,
    /// Wakes the job that compares payments after webhooks.
    pub(crate) comparisons: Wake,
}

pub(crate) fn role(service: &Arc<Service>, workers: usize, context: &Context) -> Role {
    let drive = Job::new("payment.drive", SECOND, service, drive::drive_one);
    let compare_reported = Job::new("payment.compare_reported", SECOND, service, reconcile::compare_reported);
    Role::new(roster::PAYMENT, context)
        .database(&crate::SCHEMA, &service.db, &service.clock)
        .serve(PaymentServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .consume(&service.db, on_event::TOPICS, service)
        .job(drive.woken_by(service.work.clone()).workers(workers))
        .job(compare_reported.woken_by(service.comparisons.clone()))
        .job(Job::new("payment.compare_daily", SECOND / 4, service, reconcile::compare_daily).workers(MAX_COMPARISONS))
        .job(Job::new("payment.apply_order_states", SECOND * 10, service, stale::apply_order_states))
        .job(Job::new("payment.behind", SECOND * 10, service, drive::measure_behind))
        .job(Job::new("payment.lag", SECOND * 10, service, reconcile::measure_lag))
        .job(Job::new("payment.differences", SECOND * 10, service, reconcile::count_differences))
        .job(Job::new("payment.delete_old_webhooks", SECOND * 60, service, webhook::delete_old))
}
