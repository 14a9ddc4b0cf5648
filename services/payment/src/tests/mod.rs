mod check;
mod drive;
mod goal;
mod keys;
mod limits;
mod read;
mod reconcile;
mod refund;
mod refund_failed;
mod stale;
mod stripe;
mod unknown;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use chassis::Did;
use chassis::event::outbox::Wake;
use chassis::event::{Consumer, Record};
use chassis::rpc::client;
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::*;
use contracts::souk::payment::v1::payment_service_client::PaymentServiceClient;
use contracts::souk::r#type::v1::Money;
use prost::Message;
use provider::Provider;
use sqlx::PgPool;
use testkit::Kit;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::budget::{Budget, Rates};
use crate::drive::drive;
use crate::service::{Service, consumer, role};
use crate::stripe::Stripe;

/// Nobody answers there.
const NOBODY: &str = "http://127.0.0.1:9";
/// More than tests need.
pub(super) const RATES: Rates = Rates { calls: 100_000, comparisons: 10_000 };
/// Signs webhooks.
pub(super) const SECRET: &str = "whsec_test";

pub(super) fn reserved(payment_method: &str) -> Event {
    Event::OrderReserved(OrderReserved { payment_method: payment_method.to_owned() })
}

/// The payment service over the provider's simulator, which speaks real HTTP and keeps a ledger of its own.
pub(super) struct Till {
    pub(super) kit: Kit,
    pub(super) db: PgPool,
    pub(super) service: Arc<Service>,
    pub(super) consumer: Consumer,
    pub(super) client: PaymentServiceClient<Channel>,
    pub(super) user: Uuid,
    pub(super) provider: String,
    pub(super) simulator: Option<Provider>,
    stop: CancellationToken,
}

impl Drop for Till {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Till {
    pub(super) async fn open(db: PgPool) -> Self {
        Self::open_patient(db, Duration::from_secs(10)).await
    }

    /// `patience`: how long a call to the provider may take.
    pub(super) async fn open_patient(db: PgPool, patience: Duration) -> Self {
        Self::open_with(db, patience, NOBODY).await
    }

    /// `orders`: where the order service is.
    pub(super) async fn open_with(db: PgPool, patience: Duration, orders: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("souk-provider-{}", Uuid::now_v7()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let provider = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let simulator = Provider::open(folder).expect("a fresh ledger");
        tokio::spawn(simulator.clone().serve_on(listener, stop.clone()));
        Self::open_at(db, (provider, Some(simulator)), patience, stop, orders).await
    }

    /// Its provider is away, and nobody said what would sign its webhooks.
    pub(super) async fn open_without_provider(db: PgPool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let provider = format!("http://{}", listener.local_addr().expect("an address"));
        drop(listener);
        Self::open_at(db, (provider, None), Duration::from_secs(10), CancellationToken::new(), NOBODY).await
    }

    async fn open_at(
        db: PgPool,
        (provider, simulator): (String, Option<Provider>),
        patience: Duration,
        stop: CancellationToken,
        orders: &str,
    ) -> Self {
        let kit = Kit::new();
        let orders = OrderServiceClient::new(client::connect("order", orders).expect("a URL"));
        let service = Arc::new(Service {
            db: db.clone(),
            clock: kit.context.clock.clone(),
            provider: Stripe::new(&provider, "sk_test_souk", patience, Budget::new(db.clone(), RATES)).expect("a URL"),
            lease: Duration::from_secs(25),
            webhook_secret: simulator.as_ref().and_then(|_| SECRET.parse().ok()),
            orders,
            published: Wake::default(),
            work: Wake::default(),
            looks: Wake::default(),
        });
        let channel = kit.serve(role(service.clone(), ([127, 0, 0, 1], 0).into(), 1, &kit.context)).await;
        let (consumer, client) = (consumer(service.clone()), PaymentServiceClient::new(channel));
        Self { kit, db, service, consumer, client, user: Uuid::now_v7(), provider, simulator, stop }
    }

    /// Delivered twice, as Kafka may.
    pub(super) async fn hear(&self, order_id: Uuid, version: i64, event: Event) {
        let record = self.record(order_id, version, event);
        self.hear_all(&[record.clone(), record]).await;
    }

    /// Delivered together.
    pub(super) async fn hear_all(&self, records: &[Record]) {
        testkit::hear(&self.consumer, &self.kit.context.clock, records).await;
    }

    pub(super) fn record(&self, order_id: Uuid, version: i64, event: Event) -> Record {
        let (event_type, total) = (event.event_type(), Some(Money::new("EUR", 2_500)));
        let event =
            OrderEvent { order_id: order_id.to_string(), user_id: self.user.to_string(), total, event: Some(event) };
        testkit::record(event_type, order_id, version, event.encode_to_vec())
    }

    pub(super) async fn reserved(&self, payment_method: &str) -> Uuid {
        let order_id = Uuid::now_v7();
        self.hear(order_id, 2, reserved(payment_method)).await;
        order_id
    }

    pub(super) async fn confirmed(&self, order_id: Uuid) {
        self.hear(order_id, 3, Event::OrderConfirmed(OrderConfirmed::default())).await;
    }

    pub(super) async fn cancelled(&self, order_id: Uuid) {
        self.ended(order_id, Event::OrderCancelled(OrderCancelled::default())).await;
    }

    pub(super) async fn ended(&self, order_id: Uuid, how: Event) {
        self.hear(order_id, 4, how).await;
    }

    /// Works until nothing is due, letting time pass where something was put off.
    pub(super) async fn work(&self) {
        for _ in 0..20 {
            while drive(self.service.clone()).await.expect("the database is there") == Did::Something {}
            let due = sqlx::query_scalar!(r#"select count(*) as "n!" from payment where due_at is not null"#);
            if due.fetch_one(&self.db).await.expect("a count") == 0 {
                return;
            }
            self.kit.context.clock.advance(Duration::from_secs(31));
        }
        panic!("it never comes to rest");
    }

    /// An order that is paid.
    pub(super) async fn captured(&self, payment_method: &str) -> Uuid {
        let order_id = self.reserved(payment_method).await;
        self.work().await;
        self.confirmed(order_id).await;
        self.work().await;
        order_id
    }

    pub(super) async fn payment_id(&self, order_id: Uuid) -> Uuid {
        let id = sqlx::query_scalar!("select payment_id from payment where order_id = $1", order_id);
        id.fetch_one(&self.db).await.expect("a payment")
    }

    async fn intent_id(&self, order_id: Uuid) -> String {
        let id = sqlx::query_scalar!("select intent_id from payment where order_id = $1", order_id);
        id.fetch_one(&self.db).await.expect("a payment").expect("its intent is known")
    }

    /// The order's intent, as the provider shows it.
    pub(super) async fn intent(&self, order_id: Uuid) -> serde_json::Value {
        let url = format!("{}/v1/payment_intents/{}", self.provider, self.intent_id(order_id).await);
        let shown = reqwest::Client::new().get(url).bearer_auth("sk_test_souk").send().await;
        let shown = shown.expect("the provider is there").bytes().await.expect("a body");
        serde_json::from_slice(&shown).expect("JSON")
    }

    /// Somebody does something at the provider itself, to the order's intent.
    pub(super) async fn at_provider(&self, order_id: Uuid, path: &str, form: &[(&str, &str)]) {
        let id = self.intent_id(order_id).await;
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.replace("INTENT", &id))).collect();
        let url = format!("{}{}", self.provider, path.replace("INTENT", &id));
        let done = reqwest::Client::new().post(url).bearer_auth("sk_test_souk").form(&form).send().await;
        let done = done.expect("the provider is there");
        assert!(done.status().is_success(), "{path}: {}", done.status());
    }

    pub(super) async fn state(&self, order_id: Uuid) -> String {
        let state = sqlx::query_scalar!("select state from payment where order_id = $1", order_id);
        state.fetch_one(&self.db).await.expect("a payment")
    }

    /// What was published about an order's payment, in versions without gaps.
    pub(super) async fn published(&self, order_id: Uuid) -> Vec<String> {
        let id = self.payment_id(order_id).await;
        let records = testkit::published(&self.db).await.into_iter().filter(|record| record.key == id);
        let named = records.enumerate().map(|(at, record)| {
            assert_eq!(record.version, at as i64 + 1);
            record.event_type.rsplit('.').next().unwrap_or_default().to_owned()
        });
        named.collect()
    }

    /// Kinds and amounts in our ledger.
    pub(super) async fn ours(&self, order_id: Uuid) -> Vec<(String, i64)> {
        let rows = sqlx::query!(
            "select ledger_transfer.kind, minor from ledger_transfer join payment using (payment_id)
             where order_id = $1 order by id",
            order_id,
        );
        rows.fetch_all(&self.db).await.expect("rows").into_iter().map(|row| (row.kind, row.minor)).collect()
    }

    /// The same of the provider's, in the same words.
    pub(super) async fn theirs(&self, order_id: Uuid) -> Vec<(String, i64)> {
        let page = reqwest::get(format!("{}/_ledger", self.provider)).await.expect("the provider is there");
        let page: serde_json::Value = serde_json::from_slice(&page.bytes().await.expect("a body")).expect("JSON");
        let entries = page["entries"].as_array().expect("entries").iter();
        let own = entries.filter(|entry| entry["metadata"]["order_id"] == order_id.to_string());
        let named = own.map(|entry| {
            let kind = match entry["kind"].as_str().expect("a kind") {
                "authorized" => "AUTHORIZATION",
                "captured" => "CAPTURE",
                "voided" => "VOID",
                "refunded" => "REFUND",
                "refund_failed" => "REFUND_REVERSAL",
                other => panic!("nothing of ours is called {other}"),
            };
            (kind.to_owned(), entry["amount"].as_i64().expect("an amount"))
        });
        named.collect()
    }
}
