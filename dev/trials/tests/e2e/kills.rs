//! Souk is killed repeatedly during orders: every order reaches the right state, and none is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};
use stack::client::Client;
use stack::controlled::Stack;
use uuid::Uuid;

use crate::{Market, alone, check, wait};

const CLIENTS: usize = 8;
const ORDERS: usize = 500;
const KILLS: usize = 30;
const UNITS: u32 = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// How an order must end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Paid,
    Declined,
    Cancelled,
}

/// The orders of customers, in turn.
const MIX: [(&str, End); 16] = [
    ("pm_card_visa", End::Paid),
    ("pm_card_chargeDeclined", End::Declined),
    ("pm_card_visa", End::Cancelled),
    ("pm_card_visa", End::Paid),
    ("pm_souk_slow_capture", End::Paid),
    ("pm_card_visa", End::Paid),
    ("pm_souk_slow_capture", End::Cancelled),
    ("pm_card_visa", End::Paid),
    ("pm_souk_timeout_after_success", End::Paid),
    ("pm_card_visa", End::Cancelled),
    ("pm_card_visa", End::Paid),
    ("pm_souk_error_after_success", End::Paid),
    ("pm_card_visa", End::Paid),
    ("pm_card_chargeDeclined", End::Declined),
    ("pm_souk_error_after_success", End::Cancelled),
    ("pm_card_visa", End::Paid),
];

impl End {
    fn is(self, order: &Value) -> bool {
        match self {
            Self::Paid => order["state"] == "ORDER_STATE_CONFIRMED" && order["payment"]["captured"] == true,
            Self::Declined => order["state"] == "ORDER_STATE_PAYMENT_FAILED",
            Self::Cancelled => order["state"] == "ORDER_STATE_CANCELLED",
        }
    }

    /// Whether these are legal transfers for this end. `souk check` compares them with the provider's.
    fn allows(self, ledger: &[String]) -> bool {
        let ledger: Vec<_> = ledger.iter().map(String::as_str).collect();
        matches!(
            (self, ledger.as_slice()),
            (Self::Paid, ["AUTHORIZATION", "CAPTURE"])
                | (Self::Declined | Self::Cancelled, [])
                | (Self::Cancelled, ["AUTHORIZATION", "VOID"] | ["AUTHORIZATION", "CAPTURE", "REFUND"])
        )
    }
}

/// Retries under the same key until there is a response.
async fn send_until_response(customer: &Client, path: &str, body: Value) -> Result<String> {
    let (key, begun) = (Uuid::now_v7().to_string(), Instant::now());
    loop {
        match customer.send(Method::POST, path, &key, Some(body.clone())).await {
            Ok(response) if response.status.is_success() => return crate::order_id(&response),
            Ok(response) if response.status.is_client_error() && response.status.as_u16() != 409 => {
                response.ok().map(drop)?
            }
            Ok(_) | Err(_) => {}
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "no response within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A random pause, so that kills meet every state.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
}

/// Buys until there are no more kills and enough orders.
async fn buy(
    customer: &Client,
    product_id: &str,
    count: &AtomicUsize,
    over: &AtomicBool,
) -> Result<Vec<(String, End)>> {
    let mut placed = Vec::new();
    loop {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number >= ORDERS && over.load(Ordering::Relaxed) {
            return Ok(placed);
        }
        let (method, end) = MIX[number % MIX.len()];
        let items = json!([{"productId": product_id, "quantity": 1}]);
        let order =
            send_until_response(customer, "/v1/orders", json!({"items": items, "paymentMethod": method})).await?;
        pause().await;
        if end == End::Cancelled {
            send_until_response(customer, &format!("/v1/orders/{order}:cancel"), json!({"reason": 1})).await?;
        }
        placed.push((order, end));
    }
}

/// Every third kill does not wait until souk is ready again, so that the next one may come while it starts.
async fn kill(stack: &Stack) -> Result<()> {
    for number in 0..KILLS {
        let pause = rand::random_range(50..400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stack.control(if number % 3 == 0 { "kill-now souk" } else { "kill souk" }).await?;
    }
    Ok(())
}

/// Waits until all orders of a customer have ended as they must. Returns the number of units that were sold.
async fn wait_for_ends(market: &Market, customer: &Client, orders: Vec<(String, End)>) -> Result<i64> {
    let mut kept = 0;
    for (order, end) in orders {
        customer.wait_for(&order, PATIENCE, "in its expected end state", |order| end.is(order)).await?;
        let what = format!("the ledger of {order}");
        wait(&what, async || Ok(end.allows(&market.ledger(&order).await?))).await?;
        kept += i64::from(end == End::Paid);
    }
    Ok(kept)
}

/// Waits until the edge serves all roles again.
async fn wait_for_recovery(market: &Market) -> Result<()> {
    let paths = ["/v1/users/me", "/v1/products", &format!("/v1/stock/{}", market.sku), "/v1/orders", "/v1/payments"];
    for path in paths {
        let what = format!("{path} to be served again");
        wait(&what, async || Ok(market.operator.get(path).await?.status.as_u16() != 503)).await?;
    }
    Ok(())
}

#[test]
fn souk_is_killed_thirty_times_while_orders_are_placed_and_cancelled() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, UNITS).await?;
        let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut customers = Vec::new();
        for _ in 0..CLIENTS {
            customers.push(stack.customer().await?);
        }
        let killer = async {
            let killed = kill(stack).await;
            over.store(true, Ordering::Relaxed);
            killed
        };
        let buying = customers.iter().map(|customer| buy(customer, &market.product_id, &count, &over));
        let (killed, placed) = tokio::join!(killer, try_join_all(buying));
        killed?;
        let placed = placed?;
        wait_for_recovery(&market).await?;

        let ends = customers.iter().zip(placed).map(|(customer, orders)| wait_for_ends(&market, customer, orders));
        let sold: i64 = try_join_all(ends).await?.into_iter().sum();
        market.wait_for_available(i64::from(UNITS) - sold).await?;
        check(stack).await
    })
}
