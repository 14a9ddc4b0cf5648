//! Customers: they buy, now and then call off, and insist as a careful client does: the same key until there is an answer.
//! Every attempt is written down, in memory for the verdicts and as a journal for `souk check`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::shop::{Answer, Client, random_password};

/// How long a customer insists.
const PATIENCE: Duration = Duration::from_secs(90);
const BEFORE_INSISTING: Duration = Duration::from_millis(100);
/// Access tokens live for five minutes.
const SIGNED_IN_FOR: Duration = Duration::from_secs(200);

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// A definite no.
    Refused,
    /// No answer, or one that says to try again.
    Failed,
}

impl Outcome {
    fn of(answer: &Result<Answer>) -> Self {
        match answer {
            Ok(answer) if answer.status.is_success() => Self::Ok,
            // A twin of it is still at work.
            Ok(answer) if answer.status.as_u16() == 409 => Self::Failed,
            Ok(answer) if answer.status.is_client_error() && answer.status.as_u16() != 499 => Self::Refused,
            Ok(_) | Err(_) => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "unknown",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// What is bought.
pub(crate) fn purchase(product: &str, quantity: u32, payment_method: &str) -> Value {
    json!({"items": [{"productId": product, "quantity": quantity}], "paymentMethod": payment_method})
}

/// What all customers saw.
pub(crate) struct Journal {
    attempts: Mutex<Vec<Attempt>>,
    file: Mutex<BufWriter<File>>,
    written: AtomicU64,
    /// Half of the customers leave in the middle.
    pub(crate) leaving: AtomicBool,
    /// Customers buy at half the rate.
    pub(crate) calm: AtomicBool,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let file = Mutex::new(BufWriter::new(file));
        let (leaving, calm) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { attempts: Mutex::default(), file, written: AtomicU64::new(0), leaving, calm })
    }

    fn note(&self, kind: &str, key: &str, begun: Instant, outcome: Outcome, order_id: Option<&str>) -> Result<()> {
        self.attempts.lock().expect("no panics").push(Attempt { begun, ended: Instant::now(), outcome });
        self.write(kind, key, outcome.name(), order_id)
    }

    /// For the journal alone, such as of a customer who left and saw nothing.
    fn write(&self, kind: &str, key: &str, outcome: &str, order_id: Option<&str>) -> Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let attempt = self.written.fetch_add(1, Ordering::Relaxed);
        let line =
            json!({"attempt": attempt, "at": at, "kind": kind, "key": key, "outcome": outcome, "order_id": order_id});
        Ok(writeln!(self.file.lock().expect("no panics"), "{line}")?)
    }

    /// Those that began in between.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<Attempt> {
        let attempts = self.attempts.lock().expect("no panics");
        attempts.iter().filter(|attempt| attempt.begun >= from && attempt.begun <= to).copied().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.attempts.lock().expect("no panics").len()
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.file.lock().expect("no panics").flush()?)
    }
}

pub(crate) struct Load {
    pub(crate) journal: Arc<Journal>,
    stop: CancellationToken,
    customers: JoinSet<Result<()>>,
}

impl Load {
    /// `rate`: purchases a second, of all customers together.
    pub(crate) fn start(
        edge: Client,
        journal: Arc<Journal>,
        products: &[String],
        customers: u32,
        rate: u32,
        seed: u64,
    ) -> Self {
        let (stop, mut all) = (CancellationToken::new(), JoinSet::new());
        for number in 0..customers {
            let customer = Customer {
                edge: edge.clone(),
                insist: Insist { journal: journal.clone() },
                products: products.to_vec(),
                every: Duration::from_secs(1) * customers / rate,
                random: StdRng::seed_from_u64(seed.wrapping_add(u64::from(number))),
            };
            all.spawn(customer.live(stop.clone()));
        }
        Self { journal, stop, customers: all }
    }

    /// Lets everybody finish what they are at.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        for ended in self.customers.join_all().await {
            ended?;
        }
        self.journal.flush()
    }
}

/// A client that repeats itself under one key until there is an answer.
pub(crate) struct Insist {
    pub(crate) journal: Arc<Journal>,
}

impl Insist {
    /// The order, unless it was refused.
    pub(crate) async fn until_answered(
        &self,
        session: &Client,
        kind: &str,
        path: &str,
        body: Value,
    ) -> Result<Option<String>> {
        let (key, first) = (Uuid::now_v7().to_string(), Instant::now());
        loop {
            let begun = Instant::now();
            let answer = session.send(Method::POST, path, &key, Some(body.clone())).await;
            let (outcome, order) = (Outcome::of(&answer), order_id(&answer).map(str::to_owned));
            self.journal.note(kind, &key, begun, outcome, order.as_deref())?;
            match outcome {
                Outcome::Ok => return Ok(order),
                Outcome::Refused => return Ok(None),
                Outcome::Failed if first.elapsed() > PATIENCE => bail!("{kind} {key}: no answer within {PATIENCE:?}"),
                Outcome::Failed => tokio::time::sleep(BEFORE_INSISTING).await,
            }
        }
    }
}

struct Customer {
    edge: Client,
    insist: Insist,
    products: Vec<String>,
    every: Duration,
    random: StdRng,
}

impl Customer {
    async fn live(mut self, stop: CancellationToken) -> Result<()> {
        let (email, password) = (format!("{}@example.com", Uuid::now_v7().simple()), random_password());
        let edge = self.edge.clone();
        let (mut signed_in, mut session) = (Instant::now(), sign_up(&edge, &email, &password).await?);
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            ticks.tick().await;
            if self.insist.journal.calm.load(Ordering::Relaxed) {
                ticks.tick().await;
            }
            if signed_in.elapsed() > SIGNED_IN_FOR {
                (signed_in, session) = (Instant::now(), sign_in(&edge, &email, &password).await?);
            }
            self.buy(&session).await?;
        }
        Ok(())
    }

    async fn buy(&mut self, session: &Client) -> Result<()> {
        let product = self.products.choose(&mut self.random).context("there are products")?.clone();
        let (method, _) = METHODS.choose_weighted(&mut self.random, |it| it.1)?;
        let body = purchase(&product, self.random.random_range(1..=3), method);
        let journal = &self.insist.journal;
        if journal.leaving.load(Ordering::Relaxed) && self.random.random_bool(0.5) {
            let key = Uuid::now_v7().to_string();
            let begun = Instant::now();
            let call = session.send(Method::POST, "/v1/orders", &key, Some(body));
            let moment = Duration::from_micros(self.random.random_range(0..20_000));
            return match tokio::time::timeout(moment, call).await {
                Ok(answer) => journal.note("create", &key, begun, Outcome::of(&answer), order_id(&answer)),
                // Whatever became of it.
                Err(_) => journal.write("create", &key, "unknown", None),
            };
        }
        let order = self.insist.until_answered(session, "create", "/v1/orders", body).await?;
        let Some(order) = order.filter(|_| self.random.random_bool(0.05)) else { return Ok(()) };
        let pause = Duration::from_millis(self.random.random_range(0..400));
        tokio::time::sleep(pause).await;
        let path = format!("/v1/orders/{order}:cancel");
        self.insist.until_answered(session, "cancel", &path, json!({"reason": 1})).await.map(drop)
    }
}

fn order_id(answer: &Result<Answer>) -> Option<&str> {
    answer.as_ref().ok()?.body["order"]["orderId"].as_str()
}

/// A new customer, signed in.
pub(crate) async fn sign_up(edge: &Client, email: &str, password: &str) -> Result<Client> {
    register(edge, email, password).await?;
    sign_in(edge, email, password).await
}

/// One customer after the other. Comes back only when that cannot be done.
pub(crate) async fn register_for_ever(edge: &Client) -> anyhow::Error {
    loop {
        let email = format!("{}@example.com", Uuid::now_v7().simple());
        if let Err(error) = register(edge, &email, &random_password()).await {
            return error;
        }
    }
}

async fn sign_in(edge: &Client, email: &str, password: &str) -> Result<Client> {
    let first = Instant::now();
    loop {
        match edge.sign_in(email, password).await {
            Ok(session) => return Ok(session),
            Err(error) if first.elapsed() > PATIENCE => return Err(error.context("nobody can sign in")),
            Err(_) => tokio::time::sleep(BEFORE_INSISTING).await,
        }
    }
}

async fn register(edge: &Client, email: &str, password: &str) -> Result<()> {
    let body = json!({"email": email, "password": password, "displayName": "A customer"});
    let first = Instant::now();
    loop {
        let answer = edge.send(Method::POST, "/v1/users", email, Some(body.clone())).await;
        match Outcome::of(&answer) {
            Outcome::Ok => return Ok(()),
            Outcome::Refused => bail!("nobody can register: {answer:?}"),
            Outcome::Failed if first.elapsed() > PATIENCE => bail!("nobody can register: {answer:?}"),
            Outcome::Failed => tokio::time::sleep(BEFORE_INSISTING).await,
        }
    }
}
