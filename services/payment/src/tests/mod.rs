mod check;
mod claim;
mod drive;
mod goal;
mod keys;
mod limits;
mod order_return;
mod read;
mod reconcile;
mod refund;
mod refund_failed;
mod search;
mod stale;
mod stripe;
mod unknown;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::payment::v1::payment_service_client::PaymentServiceClient;
use provider::Provider;
use sqlx::PgPool;
use tempfile::TempDir;
use testkit::{Kit, unreachable};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::budget::{Budget, Rates};
use crate::service::{Service, role};
use crate::stripe::Stripe;

/// More than tests need.
pub(super) const RATES: Rates = Rates { calls: 100_000, comparisons: 10_000 };
/// Signs webhooks.
pub(super) const SECRET: &str = "whsec_test";

/// The payment service over the provider's simulator, which speaks real HTTP and keeps a ledger of its own. What tests do with
/// it stands beside the tests of what they do.
pub(super) struct Fixture {
    pub(super) kit: Kit,
    pub(super) service: Arc<Service>,
    pub(super) client: PaymentServiceClient<Channel>,
    /// Where the provider is.
    pub(super) provider: String,
    pub(super) simulator: Provider,
    pub(super) stop: CancellationToken,
    _stop_at_the_end: DropGuard,
    _folder: TempDir,
}

impl Fixture {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_with(db, Duration::from_secs(10), |_| {}).await
    }

    /// `patience`: how long a call to the provider may take. `change` says what else is different about the service.
    pub(super) async fn open_with(db: PgPool, patience: Duration, change: impl FnOnce(&mut Service)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let provider = format!("http://{}", listener.local_addr().expect("an address"));
        let (simulator, stop) = (Provider::open(folder.path()).expect("a fresh ledger"), CancellationToken::new());
        tokio::spawn(simulator.clone().serve_on(listener, stop.clone()));
        let mut kit = Kit::new();
        let mut service = Service {
            provider: Stripe::new(&provider, "sk_test_souk", patience, Budget::new(db.clone(), RATES)).expect("a URL"),
            db,
            clock: kit.context.clock.clone(),
            lease: Duration::from_secs(25),
            webhook_secret: Some(SECRET.into()),
            orders: OrderServiceClient::new(unreachable(roster::PAYMENT, roster::ORDER)),
            published: Wake::default(),
            work: Wake::default(),
            comparisons: Wake::default(),
        };
        change(&mut service);
        let service = Arc::new(service);
        let client = PaymentServiceClient::new(kit.serve(role(&service, 1, &kit.context)).await);
        Self {
            kit,
            service,
            client,
            provider,
            simulator,
            _stop_at_the_end: stop.clone().drop_guard(),
            stop,
            _folder: folder,
        }
    }
}
