//! Many want the same few.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::{Market, alone, check, order_id};

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
