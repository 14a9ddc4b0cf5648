//! Contention for a few units, and clients with very short deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{Market, alone, check, order_id, shared};

const UNITS: u32 = 100;
const BUYERS: usize = 16;
const ATTEMPTS: usize = 5_000;

#[test]
fn of_five_thousand_attempts_on_a_hundred_units_a_hundred_succeed() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, UNITS).await?;
        let mut buyers = JoinSet::new();
        for buyer in 0..BUYERS {
            let (customer, product_id) = (stack.customer().await?, market.product_id.clone());
            let share = ATTEMPTS / BUYERS + usize::from(buyer < ATTEMPTS % BUYERS);
            buyers.spawn(async move {
                let mut orders = Vec::new();
                for _ in 0..share {
                    orders.push(order_id(&customer.order(&product_id, 1, "pm_card_visa").await?)?);
                }
                let mut confirmed = 0;
                for order in orders {
                    let settled = |order: &serde_json::Value| {
                        order["state"] == "ORDER_STATE_CONFIRMED" || order["state"] == "ORDER_STATE_REJECTED"
                    };
                    let order = customer.wait_for(&order, Duration::from_secs(120), "settled", settled).await?;
                    confirmed += u32::from(order["state"] == "ORDER_STATE_CONFIRMED");
                }
                anyhow::Ok(confirmed)
            });
        }
        let mut confirmed = 0;
        for outcome in buyers.join_all().await {
            confirmed += outcome?;
        }
        ensure!(confirmed == UNITS, "{confirmed} were confirmed");
        ensure!(market.available().await? == 0);
        check(stack).await
    })
}

const IMPATIENT: usize = 4;
const ORDERS: usize = 60;

#[test]
fn calls_with_short_deadlines_do_not_fail_those_of_other_customers() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 1_000).await?;
        let (done, mut spam) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for _ in 0..IMPATIENT {
            let (hasty, done) = (stack.customer().await?, done.clone());
            let token = hasty.token().await?;
            let url = format!("http://127.0.0.1:{}/v1/orders", stack.ports().edge());
            let items = json!([{"productId": market.product_id, "quantity": 1}]);
            let body = json!({"items": items, "paymentMethod": "pm_card_visa", "validateOnly": true});
            spam.spawn(async move {
                let (client, mut calls) = (reqwest::Client::new(), 0);
                while !done.load(Ordering::Relaxed) {
                    let request = client.post(&url).bearer_auth(&token).header("grpc-timeout", "1m");
                    // Its outcome does not matter.
                    request.json(&body).send().await?.bytes().await?;
                    calls += 1;
                }
                anyhow::Ok(calls)
            });
        }
        let (mut failed, customer) = (Vec::new(), market.customer.clone().impatient());
        for _ in 0..ORDERS {
            let response = customer.order(&market.product_id, 1, "pm_card_visa").await?;
            if !response.status.is_success() {
                failed.push(response);
            }
        }
        done.store(true, Ordering::Relaxed);
        for calls in spam.join_all().await {
            ensure!(calls? > 0, "there were no calls with short deadlines");
        }
        ensure!(failed.is_empty(), "{} of {ORDERS} orders failed, such as by {:?}", failed.len(), failed[0]);
        Ok(())
    })
}
