use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{Market, expect_ledgers, order_id, shared};

#[test]
fn an_order_is_reserved_authorized_confirmed_and_captured() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 10).await?;
        let order = market.buy(2, "pm_card_visa").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await?;
        let paid = |order: &serde_json::Value| order["payment"]["captured"] == true;
        let found = market.customer.wait_for(&order, Duration::from_secs(180), "paid", paid).await?;
        ensure!(found["total"] == json!({"currency": "EUR", "minor": "2500"}), "{found}");
        ensure!(market.available().await? == 8);
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE"]).await?;

        let story = market.customer.get(&format!("/v1/orders/{order}/events")).await?.ok()?;
        let types: Vec<_> = story["events"].as_array().context("a list")?.iter().map(|event| &event["type"]).collect();
        ensure!(types == ["OrderPlaced", "OrderReserved", "OrderConfirmed", "OrderPaid"], "{story}");

        let fulfilled = json!({"carrier": "Camel Express", "trackingNumber": "CX-1"});
        let fulfilled = market.operator.post(&format!("/v1/orders/{order}:fulfill"), fulfilled).await?.ok()?;
        ensure!(fulfilled["order"]["state"] == "ORDER_STATE_FULFILLED", "{fulfilled}");
        Ok(())
    })
}

#[test]
fn an_operator_refunds_a_part_and_then_the_rest() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = market.buy(1, "pm_card_visa").await?;
        market.wait_for_payment(&order, "CAPTURED").await?;
        let payments = market.operator.get(&format!("/v1/payments?orderId={order}")).await?.ok()?;
        let payment = payments["payments"][0]["paymentId"].as_str().context("a payment has an id")?;
        let path = format!("/v1/payments/{payment}:refund");
        let refund = |how: serde_json::Value| market.operator.post(&path, how);
        for how in [json!({"reason": 1}), json!({"reason": 1, "fullRefund": true, "amountMinor": "250"})] {
            let refused = refund(how.clone()).await?;
            ensure!((refused.status.as_u16(), refused.reason()) == (400, "REQUEST_INVALID"), "{how}: {refused:?}");
            ensure!(refused.fields() == ["amount_minor", "full_refund"], "{how}: {refused:?}");
        }
        let part = refund(json!({"reason": 1, "amountMinor": "250"})).await?.ok()?;
        ensure!(part["refund"]["amount"]["minor"] == "250", "{part}");
        let rest = refund(json!({"reason": 1, "fullRefund": true})).await?.ok()?;
        ensure!(rest["refund"]["amount"]["minor"] == "1000", "{rest}");
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE", "REFUND", "REFUND"]).await?;
        let refunded = |order: &serde_json::Value| order["payment"]["refundedMinor"] == "1250";
        market.customer.wait_for(&order, Duration::from_secs(180), "refunded", refunded).await?;

        let path = format!("/v1/orders/{order}/events?pageSize=5");
        let first = market.customer.get(&path).await?.ok()?;
        let next = first["nextPageToken"].as_str().context("a token")?;
        let second = market.customer.get(&format!("{path}&pageToken={next}")).await?.ok()?;
        let sizes = [first["events"].as_array(), second["events"].as_array()].map(|page| page.map_or(0, Vec::len));
        ensure!(sizes == [5, 1] && second["nextPageToken"] == "", "{first} {second}");
        Ok(())
    })
}

#[test]
fn without_enough_stock_an_order_is_rejected_and_holds_nothing() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 1).await?;
        let order = market.buy(2, "pm_card_visa").await?;
        let found = market.customer.wait_for_state(&order, "REJECTED").await?;
        ensure!(found["exitReason"] == "STOCK_SHORT", "{found}");
        ensure!(market.reservation(&order).await? == "RESERVATION_STATE_REJECTED");
        ensure!(market.available().await? == 1);
        expect_ledgers(stack, &market, &order, &[]).await
    })
}

#[test]
fn a_declined_card_fails_the_order_and_releases_its_stock() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        for (method, reason) in
            [("pm_card_chargeDeclined", "CARD_DECLINED"), ("pm_card_authenticationRequired", "AUTHENTICATION_REQUIRED")]
        {
            let order = market.buy(2, method).await?;
            let found = market.customer.wait_for_state(&order, "PAYMENT_FAILED").await?;
            ensure!(found["exitReason"] == reason, "{found}");
            market.wait_for_available(5).await?;
            expect_ledgers(stack, &market, &order, &[]).await?;
        }
        Ok(())
    })
}

#[test]
fn a_refused_capture_releases_the_hold_and_the_stock() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = market.buy(2, "pm_souk_capture_fails").await?;
        market.customer.wait_for_state(&order, "PAYMENT_FAILED").await?;
        market.wait_for_available(5).await?;
        expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "VOID"]).await
    })
}

#[test]
fn a_lost_response_leads_to_one_authorization_and_one_capture() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let slow = market.buy(1, "pm_souk_timeout_after_success").await?;
        let broken = market.buy(1, "pm_souk_error_after_success").await?;
        for order in [slow, broken] {
            market.customer.wait_for_state(&order, "CONFIRMED").await?;
            expect_ledgers(stack, &market, &order, &["AUTHORIZATION", "CAPTURE"]).await?;
        }
        Ok(())
    })
}

#[test]
fn the_same_key_is_one_order_even_if_the_product_is_archived_in_between() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let items = json!([{"productId": market.product_id, "quantity": 1}]);
        let body = json!({"items": items, "paymentMethod": "pm_card_visa"});
        let key = crate::new_sku();
        let send = || market.customer.send(reqwest::Method::POST, "/v1/orders", &key, Some(body.clone()));
        let first = send().await?.ok()?;
        market.operator.post(&format!("/v1/products/{}:archive", market.product_id), json!({})).await?.ok()?;
        let again = send().await?.ok()?;
        ensure!(first == again, "{first} {again}");
        let orders = market.customer.get("/v1/orders").await?.ok()?;
        ensure!(orders["orders"].as_array().map(Vec::len) == Some(1), "{orders}");

        let other = json!({"items": items, "paymentMethod": "pm_card_amex"});
        let reused = market.customer.send(reqwest::Method::POST, "/v1/orders", &key, Some(other)).await?;
        ensure!((reused.status.as_u16(), reused.reason()) == (400, "IDEMPOTENCY_KEY_REUSED"), "{reused:?}");
        let fresh = market.customer.order(&market.product_id, 1, "pm_card_visa").await?;
        ensure!((fresh.status.as_u16(), fresh.reason()) == (400, "PRODUCT_UNAVAILABLE"), "{fresh:?}");
        Ok(())
    })
}

#[test]
fn a_price_that_changed_since_it_was_shown_is_not_paid() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let items = json!([{"productId": market.product_id, "quantity": 2}]);
        let mut body = json!({"items": items, "paymentMethod": "pm_card_visa", "validateOnly": true});
        let shown = market.customer.post("/v1/orders", body.clone()).await?.ok()?["order"]["total"].clone();
        ensure!(shown == json!({"currency": "EUR", "minor": "2500"}), "{shown}");
        market.operator.reprice(&market.product_id, ("EUR", 6_250)).await?.ok()?;

        body["validateOnly"] = json!(false);
        body["expectedTotal"] = shown;
        let refused = market.customer.post("/v1/orders", body.clone()).await?;
        ensure!((refused.status.as_u16(), refused.reason()) == (400, "PRICE_CHANGED"), "{refused:?}");
        let totals = json!({
            "expected_currency": "EUR", "expected_minor": "2500", "actual_currency": "EUR", "actual_minor": "12500",
        });
        ensure!(refused.body["details"][0]["metadata"] == totals, "{refused:?}");
        let orders = market.customer.get("/v1/orders").await?.ok()?;
        ensure!(orders["orders"].as_array().is_none_or(Vec::is_empty), "{orders}");

        body["expectedTotal"]["minor"] = json!("12500");
        let order = market.customer.post("/v1/orders", body).await?.ok()?;
        ensure!(order["order"]["total"]["minor"] == "12500", "{order}");
        Ok(())
    })
}

#[test]
fn a_price_or_a_state_in_the_body_is_refused_by_name() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let cheap = json!({"currency": "EUR", "minor": "1"});
        let item = json!({"productId": market.product_id, "quantity": 1});
        let order = json!({"items": [item], "paymentMethod": "pm_card_visa"});
        let with = |pointer: &str, name: &str, value: serde_json::Value| {
            let mut order = order.clone();
            order.pointer_mut(pointer).expect("it is there")[name] = value;
            order
        };
        for (body, field) in [
            (with("/items/0", "unitPrice", cheap.clone()), "items[0].unitPrice"),
            (with("", "total", cheap), "total"),
            (with("", "state", json!("ORDER_STATE_CONFIRMED")), "state"),
            // A misspelt field: if it were ignored, an order would be placed.
            (with("", "validateonly", json!(true)), "validateonly"),
        ] {
            let refused = market.customer.post("/v1/orders", body).await?;
            ensure!((refused.status.as_u16(), refused.reason()) == (400, "REQUEST_INVALID"), "{field}: {refused:?}");
            ensure!(refused.fields() == [field], "{refused:?}");
        }
        let orders = market.customer.get("/v1/orders").await?.ok()?;
        ensure!(orders["orders"].as_array().is_none_or(Vec::is_empty), "{orders}");
        Ok(())
    })
}

#[test]
fn an_order_of_another_customer_is_not_found() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order = order_id(&market.customer.order(&market.product_id, 1, "pm_card_visa").await?)?;
        let stranger = stack.customer().await?;
        for path in [format!("/v1/orders/{order}"), format!("/v1/orders/{order}/events")] {
            let response = stranger.get(&path).await?;
            ensure!((response.status.as_u16(), response.reason()) == (404, "ORDER_NOT_FOUND"), "{path}: {response:?}");
        }
        let cancel = stranger.cancel(&order).await?;
        ensure!((cancel.status.as_u16(), cancel.reason()) == (404, "ORDER_NOT_FOUND"), "{cancel:?}");
        let fulfil = json!({"carrier": "x", "trackingNumber": "y"});
        let fulfil = market.customer.post(&format!("/v1/orders/{order}:fulfill"), fulfil).await?;
        ensure!((fulfil.status.as_u16(), fulfil.reason()) == (403, "PERMISSION_DENIED"), "{fulfil:?}");
        Ok(())
    })
}
