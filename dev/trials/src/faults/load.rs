//! Customers: they buy, look around, now and then call off, and insist as a careful client does: the same key until there is
//! an answer. And a clerk, who gives back a part of what was paid.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
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
use stack::shop::{Client, Response, random_password};

/// How long a customer insists: several times as long as any fault makes all requests fail, and a promise of nobody. What
/// takes too long is found by how long requests fail at a stretch.
const PATIENCE: Duration = Duration::from_secs(180);
const BEFORE_INSISTING: Duration = Duration::from_millis(100);
/// By then, what a customer left alone is done, as a rule; a twin of what is still at work is turned away.
const BEFORE_COMING_BACK: Duration = Duration::from_secs(1);
/// Access tokens live for five minutes.
const SIGNED_IN_FOR: Duration = Duration::from_secs(200);
/// How often the clerk gives something back, and how old an order is then.
const GIVES_BACK_EVERY: Duration = Duration::from_millis(500);
const OLD_ENOUGH: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 1_000;

pub(crate) const CUSTOMERS: u32 = 24;

/// How customers pay, and how many of them do.
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

/// What is bought.
pub(crate) fn purchase(product: &str, quantity: u32, payment_method: &str) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}], "paymentMethod": payment_method})
}

/// What is asked under a key, and for which reasons it may be refused.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) kind: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) refusals: &'static [&'static str],
}

impl Wish {
    pub(crate) fn order(body: Value) -> Self {
        Self { kind: "create", path: "/v1/orders".to_owned(), body, refusals: &[] }
    }

    fn cancellation(order: &str) -> Self {
        let path = format!("/v1/orders/{order}:cancel");
        Self { kind: "cancel", path, body: json!({"reason": 1}), refusals: &["ORDER_NOT_CANCELLABLE"] }
    }

    fn refund(payment: &str, minor: i64) -> Self {
        let path = format!("/v1/payments/{payment}:refund");
        let body = json!({"amountMinor": minor.to_string(), "reason": 1});
        Self { kind: "refund", path, body, refusals: &["REFUND_EXCEEDS_CAPTURE", "PAYMENT_NOT_CAPTURED"] }
    }
}

/// Repeats a wish under one key until there is an answer. The order, if it names one. Of those who left in the middle, half
/// are gone for good.
pub(crate) async fn insist(journal: &Journal, session: &Client, wish: &Wish) -> Result<Option<String>> {
    let (key, first) = (Uuid::now_v7().to_string(), Instant::now());
    loop {
        let request = session.send(Method::POST, &wish.path, &key, Some(wish.body.clone()));
        let (outcome, answer) = journal.watch(wish.refusals, request).await;
        let order = order_id(&answer).map(str::to_owned);
        journal.write(wish.kind, &key, outcome, order.as_deref())?;
        match outcome {
            Outcome::Ok => return Ok(order),
            Outcome::Refused | Outcome::Wrong => return Ok(None),
            Outcome::Left if rand::random_bool(0.5) => return Ok(None),
            Outcome::Failed | Outcome::Left if first.elapsed() > PATIENCE => {
                bail!("{} {key}: no answer within {PATIENCE:?}", wish.kind)
            }
            Outcome::Failed => tokio::time::sleep(BEFORE_INSISTING).await,
            Outcome::Left => tokio::time::sleep(BEFORE_COMING_BACK).await,
        }
    }
}

pub(crate) struct Load {
    journal: Arc<Journal>,
    stop: CancellationToken,
    everybody: JoinSet<Result<()>>,
    shop: Arc<Shop>,
}

/// What customers go by.
struct Shop {
    /// Between two purchases of one customer, in microseconds. 0: they buy as fast as they are answered.
    every: AtomicU64,
    /// Shared by all who are at something.
    open: Arc<RwLock<()>>,
}

/// The shop is closed until this is dropped.
pub(crate) type Closed = OwnedRwLockWriteGuard<()>;

impl Load {
    /// Customers buy as fast as they are answered. `products`: ids, of SKUs numbered in the same order.
    pub(crate) fn start(
        edge: Client,
        clerk: (&str, &str),
        journal: Arc<Journal>,
        products: &[String],
        seed: u64,
    ) -> Self {
        let (stop, mut everybody) = (CancellationToken::new(), JoinSet::new());
        let shop = Arc::new(Shop { every: AtomicU64::new(0), open: Arc::default() });
        let bought = Arc::new(Mutex::new(VecDeque::new()));
        for number in 0..CUSTOMERS {
            let customer = Customer {
                edge: edge.clone(),
                journal: journal.clone(),
                products: products.to_vec(),
                shop: shop.clone(),
                random: StdRng::seed_from_u64(seed.wrapping_add(u64::from(number))),
                bought: bought.clone(),
            };
            everybody.spawn(customer.live(stop.clone()));
        }
        let credentials = (clerk.0.to_owned(), clerk.1.to_owned());
        everybody.spawn(give_back(edge, credentials, journal.clone(), shop.clone(), bought, stop.clone()));
        Self { journal, stop, everybody, shop }
    }

    /// `rate`: purchases a second, of all customers together.
    pub(crate) fn slow_down(&self, rate: f64) {
        let every = Duration::from_secs(1).mul_f64(f64::from(CUSTOMERS) / rate);
        self.shop.every.store(every.as_micros() as u64, Ordering::Relaxed);
    }

    /// Waits until everybody has finished what they are at; no new purchase begins meanwhile.
    pub(crate) async fn close(&self) -> Closed {
        self.shop.open.clone().write_owned().await
    }

    /// Lets everybody finish what they are at. Why those gave up who did.
    pub(crate) async fn stop(self) -> Vec<anyhow::Error> {
        self.stop.cancel();
        let mut failures: Vec<_> = self.everybody.join_all().await.into_iter().filter_map(Result::err).collect();
        failures.extend(self.journal.flush().err());
        failures
    }
}

/// Orders, and since when.
type Bought = Arc<Mutex<VecDeque<(String, Instant)>>>;

struct Customer {
    edge: Client,
    journal: Arc<Journal>,
    products: Vec<String>,
    shop: Arc<Shop>,
    random: StdRng,
    bought: Bought,
}

impl Customer {
    async fn live(mut self, stop: CancellationToken) -> Result<()> {
        let (email, password) = (format!("{}@example.com", Uuid::now_v7().simple()), random_password());
        let (edge, journal) = (self.edge.clone(), self.journal.clone());
        let (mut signed_in, mut session) = (Instant::now(), sign_up(&journal, &edge, &email, &password).await?);
        let (shop, mut last) = (self.shop.clone(), Instant::now());
        while !stop.is_cancelled() {
            // Not all at the same time, after the shop was closed.
            let every = Duration::from_micros(shop.every.load(Ordering::Relaxed));
            tokio::time::sleep_until((last + every.mul_f64(self.random.random_range(0.5..1.5))).into()).await;
            let _open = shop.open.read().await;
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
        let wish = Wish::order(purchase(&product, self.random.random_range(1..=3), method));
        let Some(order) = insist(&self.journal, session, &wish).await? else { return Ok(()) };
        self.look_around(session, &product, &order).await;
        if self.random.random_bool(0.05) {
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..400))).await;
            return insist(&self.journal, session, &Wish::cancellation(&order)).await.map(drop);
        }
        let mut bought = self.bought.lock().expect("no panics");
        if bought.len() < REMEMBERED {
            bought.push_back((order, Instant::now()));
        }
        Ok(())
    }

    /// Reads something, of any role.
    async fn look_around(&mut self, session: &Client, product: &str, order: &str) {
        let stock = self.random.random_range(0..self.products.len());
        let paths = [
            format!("/v1/orders/{order}"),
            format!("/v1/payments?orderId={order}"),
            format!("/v1/products/{product}"),
            format!("/v1/stock/F-{stock}"),
            "/v1/users/me".to_owned(),
        ];
        let path = paths.choose(&mut self.random).expect("there are some");
        // What came of it is in the journal; a read is not repeated.
        let _ = self.journal.watch(&[], session.get(path)).await;
    }
}

/// The clerk: twice at the same time a part of the same payment, for what was bought a little ago.
async fn give_back(
    edge: Client,
    (email, password): (String, String),
    journal: Arc<Journal>,
    shop: Arc<Shop>,
    bought: Bought,
    stop: CancellationToken,
) -> Result<()> {
    let (mut signed_in, mut session) = (Instant::now(), sign_in(&journal, &edge, &email, &password).await?);
    let mut ticks = tokio::time::interval(GIVES_BACK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let _open = shop.open.read().await;
        if signed_in.elapsed() > SIGNED_IN_FOR {
            (signed_in, session) = (Instant::now(), sign_in(&journal, &edge, &email, &password).await?);
        }
        let order = {
            let mut bought = bought.lock().expect("no panics");
            bought.front().is_some_and(|it| it.1.elapsed() > OLD_ENOUGH).then(|| bought.pop_front()).flatten()
        };
        let Some((order, _)) = order else { continue };
        let (_, payments) = journal.watch(&[], session.get(&format!("/v1/payments?orderId={order}"))).await;
        let Ok(payments) = payments.and_then(Response::ok) else { continue };
        let payment = &payments["payments"][0];
        if payment["state"] == "PAYMENT_STATE_CAPTURED" {
            let wish = Wish::refund(payment["paymentId"].as_str().context("a payment has an id")?, 400);
            tokio::try_join!(insist(&journal, &session, &wish), insist(&journal, &session, &wish))?;
        }
    }
    Ok(())
}

fn order_id(answer: &Result<Response>) -> Option<&str> {
    answer.as_ref().ok()?.body["order"]["orderId"].as_str()
}

/// A new customer, signed in.
pub(crate) async fn sign_up(journal: &Journal, edge: &Client, email: &str, password: &str) -> Result<Client> {
    register(journal, edge, email, password).await?;
    sign_in(journal, edge, email, password).await
}

/// One customer after the other. Comes back only when that cannot be done.
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
    let first = Instant::now();
    loop {
        match journal.watch(&[], request()).await {
            (Outcome::Ok, answer) => return answer?.ok(),
            (Outcome::Wrong, answer) => bail!("registering or signing in fails: {answer:?}"),
            (_, answer) if first.elapsed() > PATIENCE => bail!("registering or signing in fails: {answer:?}"),
            _ => tokio::time::sleep(BEFORE_INSISTING).await,
        }
    }
}
