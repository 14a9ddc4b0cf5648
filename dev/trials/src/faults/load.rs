//! The load. Customers place orders, read, and sometimes cancel; as a careful client does, they retry under the same key until
//! there is a response. An operator refunds a part of some orders, sends others in two parcels, and takes a unit of each back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::journal::{Journal, Outcome};
use stack::client::{Client, Response, random_password};

/// How long a customer retries: several times longer than any fault makes all requests fail. The limits of a fault are checked by
/// how long requests fail at a stretch.
const RETRY_FOR: Duration = Duration::from_secs(180);
const RETRY_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The longest pause of a customer who tries again to register or to sign in: those of one address are limited.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// By then an abandoned request is usually done; while it is in progress, a retry is refused.
const RETRY_AFTER_ABANDONING: Duration = Duration::from_secs(1);
/// Access tokens live for five minutes.
const SIGNED_IN_FOR: Duration = Duration::from_secs(200);
/// How often the operator handles an order, and how old it is at least.
const HANDLE_EVERY: Duration = Duration::from_millis(500);
const HANDLE_AFTER: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 1_000;

pub(crate) const CUSTOMERS: u32 = 24;

/// Payment methods, and the share of customers who use them.
const METHODS: [(&str, u32); 8] = [
    ("pm_card_visa", 84),
    ("pm_card_chargeDeclined", 4),
    ("pm_card_authenticationRequired", 2),
    ("pm_souk_slow", 2),
    ("pm_souk_slow_capture", 2),
    ("pm_souk_capture_fails", 2),
    ("pm_souk_timeout_after_success", 1),
    ("pm_souk_error_after_success", 3),
];

/// The body of CreateOrder.
pub(crate) fn purchase(product: &str, quantity: u32, payment_method: &str) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}], "paymentMethod": payment_method})
}

/// A request with an idempotency key, and the reasons for which it may be refused.
#[derive(Clone)]
pub(crate) struct KeyedRequest {
    pub(crate) operation: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) refusals: &'static [&'static str],
}

impl KeyedRequest {
    pub(crate) fn order(body: Value) -> Self {
        Self { operation: "create", path: "/v1/orders".to_owned(), body, refusals: &[] }
    }

    fn cancellation(order: &str) -> Self {
        let path = format!("/v1/orders/{order}:cancel");
        Self { operation: "cancel", path, body: json!({"reason": 1}), refusals: &["ORDER_NOT_CANCELLABLE"] }
    }

    fn refund(payment: &str, minor: i64) -> Self {
        let path = format!("/v1/payments/{payment}:refund");
        let body = json!({"amountMinor": minor.to_string(), "reason": 1});
        Self { operation: "refund", path, body, refusals: &["REFUND_EXCEEDS_CAPTURE", "PAYMENT_NOT_CAPTURED"] }
    }

    /// Without items, all that is left. An abandoned request may have had its effect.
    fn fulfilment(order: &str, items: Value) -> Self {
        let path = format!("/v1/orders/{order}:fulfill");
        let body = json!({"carrier": "A carrier", "trackingNumber": "1", "items": items});
        Self { operation: "fulfill", path, body, refusals: &["ORDER_NOT_FULFILLABLE", "ITEM_QUANTITY_EXCEEDED"] }
    }

    fn taking_back(order: &str, product: &str, disposition: &str) -> Self {
        let path = format!("/v1/orders/{order}:return");
        let body = json!({"items": [{"productId": product, "quantity": 1, "disposition": disposition}]});
        Self { operation: "return", path, body, refusals: &["ORDER_NOT_RETURNABLE", "ITEM_QUANTITY_EXCEEDED"] }
    }
}

/// Repeats a request under one key until there is a response. Returns the order that it names, if any. Half of the abandoned
/// requests are not repeated.
pub(crate) async fn send_until_response(
    journal: &Journal,
    session: &Client,
    request: &KeyedRequest,
) -> Result<Option<String>> {
    let (key, first) = (Uuid::now_v7().to_string(), Instant::now());
    loop {
        let sending = session.send(Method::POST, &request.path, &key, Some(request.body.clone()));
        let (outcome, response) = journal.watch(request.refusals, sending).await;
        let order = order_id(&response).map(str::to_owned);
        journal.write(request.operation, &key, outcome, order.as_deref())?;
        match outcome {
            Outcome::Ok => return Ok(order),
            Outcome::Refused | Outcome::Wrong => return Ok(None),
            Outcome::Abandoned if rand::random_bool(0.5) => return Ok(None),
            Outcome::Failed | Outcome::Abandoned if first.elapsed() > RETRY_FOR => {
                bail!("{} {key}: no response within {RETRY_FOR:?}", request.operation)
            }
            Outcome::Failed => tokio::time::sleep(RETRY_AFTER_FAILURE).await,
            Outcome::Abandoned => tokio::time::sleep(RETRY_AFTER_ABANDONING).await,
        }
    }
}

pub(crate) struct Load {
    journal: Arc<Journal>,
    stop: CancellationToken,
    clients: JoinSet<Result<()>>,
    pacing: Arc<Pacing>,
}

/// How fast customers buy.
struct Pacing {
    /// The time between two purchases of one customer, in microseconds. 0: none.
    every: AtomicU64,
    /// Read-locked while a client is busy.
    running: Arc<RwLock<()>>,
}

/// The load pauses until this is dropped.
pub(crate) type Paused = OwnedRwLockWriteGuard<()>;

impl Load {
    /// Customers buy as fast as they get responses. `products`: the ids of the SKUs `F-0`, `F-1` and so on.
    pub(crate) fn start(
        edge: Client,
        operator: (&str, &str),
        journal: Arc<Journal>,
        products: &[String],
        seed: u64,
    ) -> Self {
        let (stop, mut clients) = (CancellationToken::new(), JoinSet::new());
        let pacing = Arc::new(Pacing { every: AtomicU64::new(0), running: Arc::default() });
        let bought = Arc::new(Mutex::new(VecDeque::new()));
        for number in 0..CUSTOMERS {
            let customer = Customer {
                edge: edge.clone(),
                journal: journal.clone(),
                products: products.to_vec(),
                pacing: pacing.clone(),
                random: StdRng::seed_from_u64(seed.wrapping_add(u64::from(number))),
                bought: bought.clone(),
            };
            clients.spawn(customer.run(stop.clone()));
        }
        let credentials = (operator.0.to_owned(), operator.1.to_owned());
        clients.spawn(handle_orders(edge, credentials, journal.clone(), pacing.clone(), bought, stop.clone()));
        Self { journal, stop, clients, pacing }
    }

    /// `rate`: purchases per second, of all customers together.
    pub(crate) fn set_rate(&self, rate: f64) {
        let every = Duration::from_secs(1).mul_f64(f64::from(CUSTOMERS) / rate);
        self.pacing.every.store(every.as_micros() as u64, Ordering::Relaxed);
    }

    /// Waits until all clients are idle; no new purchase begins meanwhile.
    pub(crate) async fn pause(&self) -> Paused {
        self.pacing.running.clone().write_owned().await
    }

    /// Waits until all clients have finished. Returns the errors of those that failed.
    pub(crate) async fn stop(self) -> Vec<anyhow::Error> {
        self.stop.cancel();
        let mut failures: Vec<_> = self.clients.join_all().await.into_iter().filter_map(Result::err).collect();
        failures.extend(self.journal.flush().err());
        failures
    }
}

/// Orders, and when they were placed.
type Bought = Arc<Mutex<VecDeque<(String, Instant)>>>;

struct Customer {
    edge: Client,
    journal: Arc<Journal>,
    products: Vec<String>,
    pacing: Arc<Pacing>,
    random: StdRng,
    bought: Bought,
}

impl Customer {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let (email, password) = (format!("{}@example.com", Uuid::now_v7().simple()), random_password());
        let (edge, journal) = (self.edge.clone(), self.journal.clone());
        let (mut signed_in, mut session) = (Instant::now(), sign_up(&journal, &edge, &email, &password).await?);
        // Half of them get text messages.
        if self.random.random_bool(0.5) {
            session.set_phone("+4930123456").await?;
        }
        let (pacing, mut last) = (self.pacing.clone(), Instant::now());
        while !stop.is_cancelled() {
            // Randomized, so that not all customers continue at the same time after a pause.
            let every = Duration::from_micros(pacing.every.load(Ordering::Relaxed));
            tokio::time::sleep_until((last + every.mul_f64(self.random.random_range(0.5..1.5))).into()).await;
            let _running = pacing.running.read().await;
            last = Instant::now();
            if signed_in.elapsed() > SIGNED_IN_FOR {
                (signed_in, session) = (Instant::now(), sign_in(&journal, &edge, &email, &password).await?);
            }
            self.buy(&session).await?;
        }
        Ok(())
    }

    async fn buy(&mut self, session: &Client) -> Result<()> {
        let product = self.products.choose(&mut self.random).context("there are products")?.clone();
        let (method, _) = METHODS.choose_weighted(&mut self.random, |it| it.1)?;
        let request = KeyedRequest::order(purchase(&product, self.random.random_range(1..=3), method));
        let Some(order) = send_until_response(&self.journal, session, &request).await? else { return Ok(()) };
        self.look_around(session, &product, &order).await;
        if self.random.random_bool(0.05) {
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..400))).await;
            return send_until_response(&self.journal, session, &KeyedRequest::cancellation(&order)).await.map(drop);
        }
        let mut bought = self.bought.lock().expect("the lock is not poisoned");
        if bought.len() < REMEMBERED {
            bought.push_back((order, Instant::now()));
        }
        Ok(())
    }

    /// Reads something from any role.
    async fn look_around(&mut self, session: &Client, product: &str, order: &str) {
        let stock = self.random.random_range(0..self.products.len());
        let paths = [
            format!("/v1/orders/{order}"),
            format!("/v1/payments?orderId={order}"),
            format!("/v1/products/{product}"),
            format!("/v1/stock/F-{stock}"),
            "/v1/products?inStock=true&pageSize=20".to_owned(),
            "/v1/users/me".to_owned(),
        ];
        let path = paths.choose(&mut self.random).expect("there are some");
        // The journal has the outcome; a read is not repeated.
        let _ = self.journal.watch(&[], session.get(path)).await;
    }
}

/// The operator, who handles one paid order after another, each in another way.
async fn handle_orders(
    edge: Client,
    (email, password): (String, String),
    journal: Arc<Journal>,
    pacing: Arc<Pacing>,
    bought: Bought,
    stop: CancellationToken,
) -> Result<()> {
    let (mut signed_in, mut session) = (Instant::now(), sign_in(&journal, &edge, &email, &password).await?);
    let mut ticks = tokio::time::interval(HANDLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ways = ["refund", "RETURN_DISPOSITION_RESTOCK", "RETURN_DISPOSITION_WRITE_OFF"].into_iter().cycle();
    while !stop.is_cancelled() {
        ticks.tick().await;
        let _running = pacing.running.read().await;
        if signed_in.elapsed() > SIGNED_IN_FOR {
            (signed_in, session) = (Instant::now(), sign_in(&journal, &edge, &email, &password).await?);
        }
        let order = {
            let mut bought = bought.lock().expect("the lock is not poisoned");
            bought.front().is_some_and(|it| it.1.elapsed() > HANDLE_AFTER).then(|| bought.pop_front()).flatten()
        };
        let Some((order_id, _)) = order else { continue };
        let (_, order) = journal.watch(&[], session.get(&format!("/v1/orders/{order_id}"))).await;
        let Ok(order) = order.and_then(Response::ok) else { continue };
        let (order, text) = (&order["order"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        if order["payment"]["captured"] != true {
            continue;
        }
        match ways.next().context("they have no end")? {
            "refund" => refund_part(&journal, &session, &text(&order["payment"]["paymentId"])).await?,
            disposition => {
                let product = text(&order["items"][0]["productId"]);
                send_and_take_back(&journal, &session, &order_id, &product, disposition).await?;
            }
        }
    }
    Ok(())
}

/// Two refunds at the same time.
async fn refund_part(journal: &Journal, session: &Client, payment: &str) -> Result<()> {
    let request = KeyedRequest::refund(payment, 400);
    let twice = [&request; 2].map(|request| send_until_response(journal, session, request));
    try_join_all(twice).await.map(drop)
}

/// One unit in a parcel of its own, then the rest, and one unit comes back.
async fn send_and_take_back(
    journal: &Journal,
    session: &Client,
    order: &str,
    product: &str,
    disposition: &str,
) -> Result<()> {
    let requests = [
        KeyedRequest::fulfilment(order, json!([{"productId": product, "quantity": 1}])),
        KeyedRequest::fulfilment(order, json!([])),
        KeyedRequest::taking_back(order, product, disposition),
    ];
    for request in &requests {
        send_until_response(journal, session, request).await?;
    }
    Ok(())
}

fn order_id(response: &Result<Response>) -> Option<&str> {
    response.as_ref().ok()?.body["order"]["orderId"].as_str()
}

/// Registers a customer and signs in.
pub(crate) async fn sign_up(journal: &Journal, edge: &Client, email: &str, password: &str) -> Result<Client> {
    register(journal, edge, email, password).await?;
    sign_in(journal, edge, email, password).await
}

/// Registers one customer after another. Returns only when that fails.
pub(crate) async fn register_for_ever(journal: &Journal, edge: &Client) -> anyhow::Error {
    loop {
        let email = format!("{}@example.com", Uuid::now_v7().simple());
        if let Err(error) = register(journal, edge, &email, &random_password()).await {
            return error;
        }
    }
}

async fn register(journal: &Journal, edge: &Client, email: &str, password: &str) -> Result<()> {
    let body = json!({"email": email, "password": password, "displayName": "A customer"});
    until_done(journal, || edge.send(Method::POST, "/v1/users", email, Some(body.clone()))).await.map(drop)
}

async fn sign_in(journal: &Journal, edge: &Client, email: &str, password: &str) -> Result<Client> {
    let body = json!({"email": email, "password": password});
    edge.with_session(&until_done(journal, || edge.post("/v1/sessions", body.clone())).await?)
}

async fn until_done<F: Future<Output = Result<Response>>>(journal: &Journal, request: impl Fn() -> F) -> Result<Value> {
    let (first, mut pause) = (Instant::now(), RETRY_AFTER_FAILURE);
    loop {
        match journal.watch(&[], request()).await {
            (Outcome::Ok, response) => return response?.ok(),
            (Outcome::Wrong, response) => bail!("registering or signing in fails: {response:?}"),
            (_, response) if first.elapsed() > RETRY_FOR => bail!("registering or signing in fails: {response:?}"),
            _ => tokio::time::sleep(pause).await,
        }
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}
