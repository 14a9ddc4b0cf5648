//! Errors about requests name the field, whether from a service or the edge.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::json;
use stack::client::{Client, Response};

use crate::{Market, new_sku, shared};

fn expect(response: &Response, status: u16, reason: &str, field: &str) -> Result<()> {
    let named = field.is_empty() || response.fields().contains(&field);
    ensure!(
        response.status.as_u16() == status && response.reason() == reason && named,
        "{reason} {field}: {response:?}"
    );
    Ok(())
}

#[test]
fn orders_that_make_no_sense() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 5).await?;
        let order =
            |items| market.customer.post("/v1/orders", json!({"items": items, "paymentMethod": "pm_card_visa"}));
        let item = |quantity: i32| json!([{"productId": market.product_id, "quantity": quantity}]);
        // An order without items is one of the cart.
        expect(&order(json!([])).await?, 400, "CART_EMPTY", "")?;
        expect(&order(item(0)).await?, 400, "REQUEST_INVALID", "items[0].quantity")?;
        expect(&order(item(-1)).await?, 400, "REQUEST_INVALID", "items[0].quantity")?;
        // The error is small enough for clients and the edge, however many violations there are.
        let many = (0..100).map(|_| json!({"productId": uuid::Uuid::now_v7(), "quantity": 0})).collect();
        expect(&order(many).await?, 400, "REQUEST_INVALID", "items[9].quantity")?;
        let unknown = json!([{"productId": uuid::Uuid::now_v7(), "quantity": 1}]);
        expect(&order(unknown).await?, 400, "PRODUCT_UNAVAILABLE", "items[0].product_id")?;

        let keyless = json!({"items": item(1), "paymentMethod": "pm_card_visa"});
        let keyless = market.customer.send(Method::POST, "/v1/orders", "", Some(keyless)).await?;
        expect(&keyless, 400, "IDEMPOTENCY_KEY_REQUIRED", "request_id")?;

        let recipient = json!({"recipient": "A\0B", "lines": ["C"], "city": "D", "postalCode": "E", "country": "DE"});
        let nul = json!({"items": item(1), "paymentMethod": "pm_card_visa", "shippingAddress": recipient});
        expect(&market.customer.post("/v1/orders", nul).await?, 400, "REQUEST_INVALID", "shipping_address.recipient")?;

        let product = json!({"sku": new_sku(), "title": "x", "price": {"currency": "XTS", "minor": "1"}});
        let refused = market.operator.post("/v1/products", json!({"product": product})).await?;
        expect(&refused, 400, "REQUEST_INVALID", "product.price.currency")
    })
}

#[test]
fn what_the_edge_itself_refuses() -> Result<()> {
    shared(async |stack| {
        let (anonymous, customer) = (Client::new(stack.ports().edge()), stack.customer().await?);
        expect(&anonymous.get("/v1/orders").await?, 401, "TOKEN_MISSING", "")?;
        let large = json!({"items": [], "paymentMethod": "x".repeat(2_000_000)});
        expect(&customer.post("/v1/orders", large).await?, 413, "BODY_TOO_LARGE", "")?;
        expect(&customer.get("/v1/nothing").await?, 404, "METHOD_NOT_FOUND", "")?;
        expect(&customer.get("/v1/orders?nonsense=1").await?, 400, "REQUEST_INVALID", "")?;
        let internal = "/souk.product.v1.ProductService/QuoteItems";
        expect(&customer.post(internal, json!({})).await?, 404, "METHOD_NOT_FOUND", "")?;
        let ops = "/souk.ops.v1.OpsService/ListDeadLetters";
        expect(&customer.post(ops, json!({})).await?, 404, "METHOD_NOT_FOUND", "")
    })
}

#[test]
fn invalid_tokens() -> Result<()> {
    shared(async |stack| {
        let customer = stack.customer().await?;
        let good = customer.token().await?;
        let (head, signature) = good.rsplit_once('.').unwrap_or_default();
        let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
        let url = format!("http://127.0.0.1:{}/v1/orders", stack.ports().edge());
        for bad in ["abc", "a.b.c", &forged] {
            let response = reqwest::Client::new().get(&url).bearer_auth(bad).send().await?;
            ensure!(response.status() == 401, "{bad}: {}", response.status());
            let challenge = response.headers().get("www-authenticate").cloned();
            ensure!(challenge.is_some_and(|value| value == "Bearer realm=\"souk\", error=\"invalid_token\""));
            ensure!(response.text().await?.contains("\"TOKEN_INVALID\""));
        }
        let by_query = reqwest::get(format!("{url}?access_token={good}")).await?;
        ensure!(by_query.status().is_client_error(), "a token in the query is not accepted: {}", by_query.status());
        Ok(())
    })
}

#[test]
fn updates_say_what_they_change() -> Result<()> {
    shared(async |stack| {
        let market = Market::open(stack, 1).await?;
        let change = async |query: &str, body| {
            let path = format!("/v1/products/{}{query}", market.product_id.to_uppercase());
            market.operator.send(Method::PATCH, &path, "", Some(body)).await
        };
        // Ids are not case-sensitive.
        change("", json!({"title": "Cup", "description": "Of clay"})).await?.ok()?;
        expect(&change("", json!({"sku": "OTHER"})).await?, 400, "REQUEST_INVALID", "product.sku")?;
        let whole = json!({"title": "Mug", "price": {"currency": "EUR", "minor": "900"}});
        let whole = change("?updateMask=*", whole).await?.ok()?;
        ensure!(whole["product"]["title"] == "Mug" && whole["product"]["description"] == "", "{whole}");
        expect(&change("?updateMask=*", json!({"title": "Mug"})).await?, 400, "REQUEST_INVALID", "product.price")?;
        expect(&change("", json!({"title": "\u{a0}"})).await?, 400, "REQUEST_INVALID", "product.title")
    })
}
