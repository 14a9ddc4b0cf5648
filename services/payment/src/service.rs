//! What the service is made of, and what it does without a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::boot::config::Secret;
use chassis::event::Consumer;
use chassis::event::outbox::{Outbox, Wake};
use chassis::rpc::client;
use chassis::{Clock, Context, Did, Job, Role, Unexpected};
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::payment::v1::payment_service_server::PaymentServiceServer;
use sqlx::PgPool;

use crate::rpc::Rpc;
use crate::stripe::Stripe;
use crate::{drive, on_event, reconcile, stale, webhook};

const SECOND: Duration = Duration::from_secs(1);
/// How many payments a replica compares at once at most; how many in a second is said by the pace that all replicas share.
const SWEEPERS: usize = 4;

pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) provider: Stripe,
    pub(crate) webhook_secret: Option<Secret>,
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

pub(crate) fn role(service: Arc<Service>, listen: SocketAddr, workers: usize, context: &Context) -> Role {
    let (work, looks) = (service.work.clone(), service.looks.clone());
    Role::new(roster::PAYMENT, listen, context)
        .database(&service.db, &service.clock)
        .serve(PaymentServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .job(job(&service, "payment.drive", SECOND, drive::drive_when_woken).woken_by(work).workers(workers))
        .job(job(&service, "payment.behind", SECOND * 10, drive::measure_behind))
        .job(job(&service, "payment.waiting", SECOND * 10, stale::settle_waiting))
        .job(job(&service, "payment.look", SECOND, reconcile::look).woken_by(looks))
        .job(job(&service, "payment.sweep", SECOND / 4, reconcile::sweep).workers(SWEEPERS))
        .job(job(&service, "payment.lag", SECOND * 10, reconcile::measure_lag))
        .job(job(&service, "payment.differences", SECOND * 10, reconcile::count_differences))
        .job(job(&service, "payment.forget_webhooks", SECOND * 60, webhook::forget_old))
        .consume(consumer(service))
}

fn job<F, U>(service: &Arc<Service>, name: &'static str, every: Duration, unit: F) -> Job
where
    F: Fn(Arc<Service>) -> U + Send + Sync + 'static,
    U: Future<Output = Result<Did, Unexpected>> + Send + 'static,
{
    let service = service.clone();
    Job::new(name, every, move || unit(service.clone()))
}

pub(crate) fn consumer(service: Arc<Service>) -> Consumer {
    let db = service.db.clone();
    Consumer { name: "payment", topics: &[order_event::Event::TOPIC], db, handler: Arc::new(on_event::Orders(service)) }
}
