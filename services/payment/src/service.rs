//! What the service is made of, and what it serves, consumes and does without a request.

use std::sync::Arc;
use std::time::Duration;

use chassis::event::Wake;
use chassis::rpc::client;
use chassis::{Clock, Context, Job, Role};
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::payment::v1::payment_service_server::PaymentServiceServer;
use secrecy::SecretString;
use sqlx::PgPool;

use crate::stripe::Stripe;
use crate::{drive, on_event, reconcile, stale, webhook};

const SECOND: Duration = Duration::from_secs(1);
/// How many payments a replica compares at once at most; how many in a second is said by the pace that all replicas share.
const SWEEPERS: usize = 4;

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) provider: Stripe,
    pub(crate) webhook_secret: Option<SecretString>,
    pub(crate) orders: OrderServiceClient<client::Peer>,
    /// How long a worker has for one payment: as long as three calls that take, and wait, all the time there is. A worker that needs
    /// more, after refusals, may have lost its lease: the next one asks the provider what became of the payment.
    pub(crate) lease: Duration,
    /// Wakes the relay of the outbox.
    pub(crate) published: Wake,
    /// Wakes a worker that drives payments.
    pub(crate) work: Wake,
    /// Wakes the job that compares what the provider reported about.
    pub(crate) looks: Wake,
}

pub(crate) fn role(service: &Arc<Service>, workers: usize, context: &Context) -> Role {
    let drive = Job::new("payment.drive", SECOND, service, drive::drive_when_woken);
    let look = Job::new("payment.look", SECOND, service, reconcile::look);
    Role::new(roster::PAYMENT, context)
        .database(&service.db, &service.clock)
        .serve(PaymentServiceServer::from_arc(service.clone()))
        .publish(&service.db, &service.published)
        .consume(&service.db, on_event::TOPICS, service)
        .job(drive.woken_by(service.work.clone()).workers(workers))
        .job(look.woken_by(service.looks.clone()))
        .job(Job::new("payment.sweep", SECOND / 4, service, reconcile::sweep).workers(SWEEPERS))
        .job(Job::new("payment.waiting", SECOND * 10, service, stale::settle_waiting))
        .job(Job::new("payment.behind", SECOND * 10, service, drive::measure_behind))
        .job(Job::new("payment.lag", SECOND * 10, service, reconcile::measure_lag))
        .job(Job::new("payment.differences", SECOND * 10, service, reconcile::count_differences))
        .job(Job::new("payment.forget_webhooks", SECOND * 60, service, webhook::forget_old))
}
