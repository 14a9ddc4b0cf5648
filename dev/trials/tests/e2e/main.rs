//! End-to-end tests: real servers, started once for all tests of this program, called as clients do.

mod analytics;
mod bad_requests;
mod cancel;
mod catalogue;
mod faults;
mod grants;
mod kills;
mod network;
mod notification;
mod ops;
mod orders;
mod policy;
mod pressure;
mod reflection;
mod replay;
mod returns;
mod sessions;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use stack::client::{Client, Response};
use stack::controlled::Stack;
use stack::layout::Build;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};
use uuid::Uuid;

/// One runtime for all tests, as they share connections.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime can be started"));
static STACK: OnceCell<Stack> = OnceCell::const_new();
/// Tests that inject faults run alone.
static QUIET: RwLock<()> = RwLock::const_new(());

async fn stack() -> Result<&'static Stack> {
    let start = async || {
        let settings = ["--set=PAYMENT_PROVIDER_TIMEOUT=4s"];
        Stack::start(Build::Debug, &settings).await
    };
    STACK.get_or_try_init(start).await.map_err(|error| error.context("the stack did not start"))
}

/// A test that may run beside others.
fn shared<F: Future<Output = Result<()>>>(test: impl FnOnce(&'static Stack) -> F) -> Result<()> {
    RUNTIME.block_on(async {
        let _quiet = QUIET.read().await;
        test(stack().await?).await
    })
}

/// A test that runs alone.
fn alone<F: Future<Output = Result<()>>>(test: impl FnOnce(&'static Stack) -> F) -> Result<()> {
    RUNTIME.block_on(async {
        let _quiet = QUIET.write().await;
        test(stack().await?).await
    })
}

/// Retries under the same key until there is a response that is none of a replica that is gone or busy.
async fn send(client: &Client, path: &str, body: Value) -> Result<Response> {
    let (key, begun) = (Uuid::now_v7().to_string(), Instant::now());
    loop {
        match client.send(Method::POST, path, &key, Some(body.clone())).await {
            Ok(response) if !response.status.is_server_error() && response.status.as_u16() != 409 => {
                return Ok(response);
            }
            Ok(_) | Err(_) => {}
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "no response within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn new_sku() -> String {
    format!("SKU-{}", Uuid::now_v7().simple().to_string().to_uppercase())
}

/// A new product for a test, and a customer who buys it.
struct Market {
    operator: Client,
    customer: Client,
    sku: String,
    product_id: String,
}

impl Market {
    async fn open(stack: &Stack, units: u32) -> Result<Self> {
        let (operator, customer, sku) = (stack.operator().await?, stack.customer().await?, new_sku());
        let product_id = operator.stock(&sku, "A thing", ("EUR", 1_250), units).await?;
        Ok(Self { operator, customer, sku, product_id })
    }

    async fn buy(&self, quantity: i32, payment_method: &str) -> Result<String> {
        order_id(&self.customer.order(&self.product_id, quantity, payment_method).await?)
    }

    async fn available(&self) -> Result<i64> {
        self.operator.available(&self.sku).await
    }

    /// Stock is released asynchronously, a little after the order ended.
    async fn wait_for_available(&self, units: i64) -> Result<()> {
        wait(&format!("{units} units to be available"), async || Ok(self.available().await? == units)).await
    }

    /// Empty until inventory has heard of the order.
    async fn reservation(&self, order_id: &str) -> Result<String> {
        let response = self.operator.get(&format!("/v1/reservations/{order_id}")).await?;
        if response.reason() == "RESERVATION_NOT_FOUND" {
            return Ok(String::new());
        }
        let found = response.ok()?;
        Ok(found["reservation"]["state"].as_str().unwrap_or_default().to_owned())
    }

    async fn wait_for_reservation(&self, order_id: &str, state: &str) -> Result<()> {
        let name = format!("RESERVATION_STATE_{state}");
        wait(&name, async || Ok(self.reservation(order_id).await? == name)).await
    }

    async fn wait_for_payment(&self, order_id: &str, state: &str) -> Result<()> {
        let name = format!("PAYMENT_STATE_{state}");
        wait(&name, async || {
            let payments = self.operator.get(&format!("/v1/payments?orderId={order_id}")).await?.ok()?;
            Ok(payments["payments"][0]["state"] == name)
        })
        .await
    }

    /// The kinds of transfers in our ledger for an order's payment.
    async fn ledger(&self, order_id: &str) -> Result<Vec<String>> {
        let payments = self.operator.get(&format!("/v1/payments?orderId={order_id}")).await?.ok()?;
        let Some(payment_id) = payments["payments"][0]["paymentId"].as_str() else { return Ok(vec![]) };
        let ledger = self.operator.get(&format!("/v1/payments/{payment_id}/ledger")).await?.ok()?;
        let transfers = ledger["transfers"].as_array().context("a list")?.iter();
        Ok(transfers.filter_map(|transfer| Some(transfer["kind"].as_str()?.to_owned())).collect())
    }
}

fn order_id(response: &Response) -> Result<String> {
    let body = response.clone().ok()?;
    Ok(body["order"]["orderId"].as_str().context("an order has an id")?.to_owned())
}

async fn wait(what: &str, met: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !met().await? {
        ensure!(begun.elapsed() < Duration::from_secs(180), "waited three minutes for {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

/// Runs `action` while Kafka is stopped, and starts it again, whatever the outcome.
async fn without_kafka<T>(stack: &Stack, action: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
    stack.control("stop kafka").await?;
    let outcome = action().await;
    stack.control("start kafka").await?;
    outcome
}

/// The kinds of movements in the provider's ledger for an order.
async fn provider_ledger(stack: &Stack, order_id: &str) -> Result<Vec<String>> {
    let (mut after, mut kinds) = (0, Vec::new());
    loop {
        let url = format!("http://127.0.0.1:{}/_ledger?after={after}", stack.ports().provider());
        let page: Value = serde_json::from_str(&reqwest::get(url).await?.text().await?)?;
        for entry in page["entries"].as_array().context("a list")? {
            if entry["metadata"]["order_id"] == order_id {
                let kind = match entry["kind"].as_str() {
                    Some("authorized") => "AUTHORIZATION",
                    Some("captured") => "CAPTURE",
                    Some("voided") => "VOID",
                    Some("refunded") => "REFUND",
                    _ => "REFUND_REVERSAL",
                };
                kinds.push(kind.to_owned());
            }
        }
        if page["more"] != true {
            return Ok(kinds);
        }
        after = page["next"].as_u64().context("a number")?;
    }
}

/// Waits until both ledgers have these movements of an order.
async fn expect_ledgers(stack: &Stack, market: &Market, order_id: &str, kinds: &[&str]) -> Result<()> {
    let what = format!("both ledgers of {order_id} to have {kinds:?}");
    wait(
        &what,
        async || Ok(market.ledger(order_id).await? == kinds && provider_ledger(stack, order_id).await? == kinds),
    )
    .await
}

/// Runs `souk order rebuild` and `souk check`, which fail if there are differences or violations.
async fn check(stack: &Stack) -> Result<()> {
    stack::parts::souk(&stack.layout, &[], &["order", "rebuild"]).await?;
    stack::parts::souk(&stack.layout, &[], &["check"]).await.map(drop)
}
