//! Orders that are sent in parts, and what comes back, while Souk is killed: units and money add up in all services.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use stack::client::Client;
use stack::controlled::Stack;

use crate::{Market, alone, check, send, shared, wait};

const CLIENTS: u64 = 4;
const ORDERS_EACH: usize = 6;
const STEPS: usize = 8;
const KILLS: usize = 10;
const QUANTITY: i64 = 6;
const PRICE: i64 = 1_250;
const UNITS: u32 = 10_000;

/// What was done to an order.
#[derive(Debug, Default)]
struct Done {
    order: String,
    fulfilled: i64,
    restocked: i64,
    written_off: i64,
    /// By an operator's own refunds.
    refunded: i64,
    is_cancelled: bool,
}

impl Done {
    /// What is refunded in the end: returns get what other refunds leave.
    fn expected_refund(&self) -> i64 {
        let returned = (self.restocked + self.written_off) * PRICE;
        if self.is_cancelled { QUANTITY * PRICE } else { (self.refunded + returned).min(QUANTITY * PRICE) }
    }

    async fn step(&mut self, market: &Market, payment_id: &str, random: &mut StdRng) -> Result<()> {
        let (order, units) = (format!("/v1/orders/{}", self.order), random.random_range(1..=3_i64));
        let returned = self.restocked + self.written_off;
        match random.random_range(0..10) {
            0..4 => {
                let items = json!([{"productId": market.product_id, "quantity": units}]);
                let body = json!({"carrier": "A carrier", "trackingNumber": "1", "items": items});
                let response = send(&market.operator, &format!("{order}:fulfill"), body).await?;
                // Refunds are part of the order some time after they are accepted.
                let is_refunded = self.expected_refund() == QUANTITY * PRICE && response.reason() == "ORDER_REFUNDED";
                let fits = !self.is_cancelled && self.fulfilled + units <= QUANTITY && !is_refunded;
                ensure!(response.status.is_success() == fits, "{self:?}, {units} units to fulfil: {response:?}");
                self.fulfilled += if fits { units } else { 0 };
            }
            4..8 => {
                let is_restocked = random.random::<bool>();
                let disposition =
                    if is_restocked { "RETURN_DISPOSITION_RESTOCK" } else { "RETURN_DISPOSITION_WRITE_OFF" };
                let item = json!({"productId": market.product_id, "quantity": units, "disposition": disposition});
                let response = send(&market.operator, &format!("{order}:return"), json!({"items": [item]})).await?;
                let fits = !self.is_cancelled && returned + units <= self.fulfilled;
                ensure!(response.status.is_success() == fits, "{self:?}, {units} units to return: {response:?}");
                match (fits, is_restocked) {
                    (true, true) => self.restocked += units,
                    (true, false) => self.written_off += units,
                    (false, _) => {}
                }
            }
            8 => {
                let minor = units * 500;
                let body = json!({"amountMinor": minor, "reason": "REFUND_REASON_GOODS"});
                let response = send(&market.operator, &format!("/v1/payments/{payment_id}:refund"), body).await?;
                self.refunded += if response.status.is_success() { minor } else { 0 };
            }
            _ => {
                let response = send(&market.operator, &format!("{order}:cancel"), json!({"reason": 3})).await?;
                let is_legal = !self.is_cancelled && self.fulfilled == 0;
                ensure!(response.status.is_success() == is_legal, "{self:?}, cancelled: {response:?}");
                self.is_cancelled |= is_legal;
            }
        }
        Ok(())
    }
}

/// Waits until an order is paid, while replicas may be gone. The id of its payment.
pub(crate) async fn paid(operator: &Client, order: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        if let Ok(found) = operator.get(&format!("/v1/orders/{order}")).await {
            let payment = &found.body["order"]["payment"];
            if payment["captured"] == true {
                return Ok(payment["paymentId"].as_str().context("a payment has an id")?.to_owned());
            }
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "{order} is not paid within two minutes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Buys, sends, takes back, refunds and cancels. Each seed does the same in every run, at other moments.
async fn trade(market: &Market, over: &AtomicBool, seed: u64) -> Result<Vec<Done>> {
    let (mut all, mut random) = (Vec::new(), StdRng::seed_from_u64(seed));
    while all.len() < ORDERS_EACH || !over.load(Ordering::Relaxed) {
        let items = json!([{"productId": market.product_id, "quantity": QUANTITY}]);
        let body = json!({"items": items, "paymentMethod": "pm_card_visa"});
        let order = crate::order_id(&send(&market.customer, "/v1/orders", body).await?)?;
        let payment_id = paid(&market.operator, &order).await?;
        let mut done = Done { order, ..Done::default() };
        for _ in 0..STEPS {
            done.step(market, &payment_id, &mut random).await?;
        }
        all.push(done);
    }
    Ok(all)
}

/// Waits until stock and money of an order are what they must be.
async fn settle(market: &Market, done: &Done) -> Result<()> {
    let (what, refund) = (format!("the refunds of {done:?}"), done.expected_refund().to_string());
    wait(&what, async || {
        let order = market.operator.get(&format!("/v1/orders/{}", done.order)).await?.ok()?;
        Ok(order["order"]["payment"]["refundedMinor"] == refund)
    })
    .await?;
    let what = format!("the units of {done:?}");
    wait(&what, async || {
        let found = market.operator.get(&format!("/v1/reservations/{}", done.order)).await?.ok()?;
        Ok(found["reservation"]["lines"][0]["returnedQuantity"] == done.restocked + done.written_off)
    })
    .await
}

/// Every third kill does not wait until souk is ready again.
async fn kill(stack: &Stack) -> Result<()> {
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rand::random_range(300..1_500))).await;
        stack.control(if number % 3 == 0 { "kill-now souk" } else { "kill souk" }).await?;
    }
    Ok(())
}

#[test]
fn units_and_money_add_up_while_souk_is_killed() -> Result<()> {
    alone(async |stack| {
        let (market, over) = (Market::open(stack, UNITS).await?, AtomicBool::new(false));
        let killer = async {
            let killed = kill(stack).await;
            over.store(true, Ordering::Relaxed);
            killed
        };
        let (killed, done) = tokio::join!(killer, try_join_all((0..CLIENTS).map(|seed| trade(&market, &over, seed))));
        killed?;
        let done: Vec<_> = done?.into_iter().flatten().collect();
        wait("stock to be served again", async || Ok(market.available().await.is_ok())).await?;
        for done in &done {
            settle(&market, done).await?;
        }
        let gone = |done: &Done| if done.is_cancelled { 0 } else { QUANTITY - done.restocked };
        let sold: i64 = done.iter().map(gone).sum();
        market.wait_for_available(i64::from(UNITS) - sold).await?;
        let returned: i64 = done.iter().map(|done| done.restocked + done.written_off).sum();
        ensure!(returned > 0 && done.iter().any(|done| done.is_cancelled), "too little happened: {done:?}");
        check(stack).await
    })
}

/// Reads the pick list to its end: other tests have left orders that are older.
async fn is_to_be_picked(operator: &Client, order: &str) -> Result<bool> {
    let mut page_token = String::new();
    loop {
        let path = format!("/v1/orders:pickList?pageSize=200&pageToken={page_token}");
        let listed = operator.get(&path).await?.ok()?;
        if listed["orders"].as_array().context("a list")?.iter().any(|it| it["orderId"] == order) {
            return Ok(true);
        }
        match listed["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => page_token = next.to_owned(),
            _ => return Ok(false),
        }
    }
}

#[test]
fn a_part_is_sent_and_comes_back() -> Result<()> {
    shared(async |stack| {
        let (market, price) = (Market::open(stack, 10).await?, PRICE.to_string());
        let order = market.buy(3, "pm_card_visa").await?;
        paid(&market.operator, &order).await?;
        ensure!(is_to_be_picked(&market.operator, &order).await?, "{order} is not in the pick list");

        let items = json!([{"productId": market.product_id, "quantity": 2}]);
        let parcel = json!({"carrier": "A carrier", "trackingNumber": "1", "items": items});
        let partly = market.operator.post(&format!("/v1/orders/{order}:fulfill"), parcel).await?.ok()?;
        ensure!(partly["order"]["state"] == "ORDER_STATE_CONFIRMED", "{partly}");
        let item = json!({"productId": market.product_id, "quantity": 1, "disposition": "RETURN_DISPOSITION_RESTOCK"});
        let back = market.operator.post(&format!("/v1/orders/{order}:return"), json!({"items": [item]})).await?.ok()?;
        ensure!(back["refund"]["minor"] == price, "{back}");
        market.wait_for_available(8).await?;
        let movements = market.operator.get(&format!("/v1/stock/{}/movements", market.sku)).await?.ok()?;
        let newest = &movements["movements"][0];
        ensure!(newest["reason"] == "STOCK_MOVEMENT_REASON_RETURNED" && newest["orderId"] == order, "{movements}");
        wait("the refund to be part of the order", async || {
            let found = market.customer.get(&format!("/v1/orders/{order}")).await?.ok()?;
            Ok(found["order"]["payment"]["refundedMinor"] == price)
        })
        .await?;
        let rest = json!({"carrier": "A carrier", "trackingNumber": "2"});
        let whole = market.operator.post(&format!("/v1/orders/{order}:fulfill"), rest).await?.ok()?;
        ensure!(whole["order"]["state"] == "ORDER_STATE_FULFILLED", "{whole}");
        let shipments = whole["order"]["shipments"].as_array().context("a list")?;
        ensure!(shipments.len() == 2, "{whole}");
        crate::expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE", "REFUND"]).await
    })
}
