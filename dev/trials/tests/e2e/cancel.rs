//! Orders that are cancelled in every state: stock is released, money is voided or refunded, and both ledgers agree.

use anyhow::{Result, ensure};
use stack::controlled::Stack;
use uuid::Uuid;

use crate::replay::database;
use crate::{Market, alone, expect_ledgers, shared, wait, without_kafka};

#[test]
fn while_pending_with_kafka_stopped() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 5).await?;
        let (order, other) = without_kafka(stack, async || {
            let (order, other) = (market.buy(1, "pm_card_visa").await?, market.buy(1, "pm_card_visa").await?);
            let cancelled = market.customer.cancel(&order).await?.ok()?;
            ensure!(cancelled["order"]["state"] == "ORDER_STATE_CANCELLED", "{cancelled}");
            Ok((order, other))
        })
        .await?;
        // The backlog drains: the other order is confirmed, and the stock of this one is released.
        market.customer.wait_for_state(&other, "CONFIRMED").await?;
        market.wait_for_reservation(&order, "RELEASED").await?;
        market.wait_for_available(4).await?;
        expect_ledgers(stack, &market, &order, &[]).await
    })
}

async fn wait_for_intent(stack: &Stack, order_id: &str) -> Result<()> {
    let (sql, order_id) = ("select intent_id is not null from payment where order_id = $1", Uuid::parse_str(order_id)?);
    wait("an intent", async || {
        let mut db = database(stack, "payment").await?;
        Ok(sqlx::query_scalar(sql).bind(order_id).fetch_one(&mut db).await?)
    })
    .await
}

#[test]
fn while_reserved() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = market.buy(1, "pm_souk_slow").await?;
        market.wait_for_payment(&order, "AUTHORIZING").await?;
        // Before the provider has it, nothing is authorized, and there is nothing to void.
        wait_for_intent(stack, &order).await?;
        let cancelled = market.customer.cancel(&order).await?.ok()?;
        ensure!(cancelled["order"]["state"] == "ORDER_STATE_CANCELLED", "{cancelled}");
        market.wait_for_reservation(&order, "RELEASED").await?;
        market.wait_for_available(5).await?;
        market.wait_for_payment(&order, "VOIDED").await?;
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "VOID"]).await
    })
}

#[test]
fn during_the_capture() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = market.buy(1, "pm_souk_slow_capture").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await?;
        market.wait_for_payment(&order, "CAPTURING").await?;
        market.customer.cancel(&order).await?.ok()?;
        market.wait_for_available(5).await?;
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE", "REFUND"]).await
    })
}

#[test]
fn while_confirmed_and_paid() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = market.buy(1, "pm_card_visa").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await?;
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE"]).await?;
        market.customer.cancel(&order).await?.ok()?;
        market.wait_for_available(5).await?;
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE", "REFUND"]).await?;
        wait("the refund to be part of the order", async || {
            let order = market.customer.get(&format!("/v1/orders/{order}")).await?.ok()?;
            Ok(order["order"]["payment"]["refundedMinor"] == "1250")
        })
        .await
    })
}
