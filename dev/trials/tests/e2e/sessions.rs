//! Sessions as clients see them: refreshed, ended, and refused by every role afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use stack::client::{Client, random_password};
use stack::controlled::Stack;
use uuid::Uuid;

use crate::{Market, check, shared, wait};

/// A customer who has just registered.
struct Person {
    anonymous: Client,
    email: String,
    password: String,
}

impl Person {
    async fn register(stack: &Stack) -> Result<Self> {
        let (anonymous, name) = (Client::new(stack.ports().edge()), Uuid::now_v7().simple().to_string());
        let (email, password) = (format!("{name}@example.com"), random_password());
        let body = json!({"email": email, "password": password, "displayName": "A customer"});
        anonymous.post("/v1/users", body).await?.ok()?;
        Ok(Self { anonymous, email, password })
    }

    async fn sign_in(&self) -> Result<(Client, Value)> {
        let body = json!({"email": self.email, "password": self.password, "device": "A test"});
        let session = self.anonymous.post("/v1/sessions", body).await?.ok()?;
        Ok((self.anonymous.with_session(&session)?, session))
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("{field} in {value}"))
}

/// A path of each role that asks for a token.
const TOKEN_NEEDED: [&str; 3] =
    ["/v1/users/me", "/v1/orders", "/v1/payments?orderId=01a21008-31bf-734b-ab66-d08b4f7932bf"];

#[test]
fn a_session_that_was_ended_is_refused_by_every_role_within_a_minute() -> Result<()> {
    shared(async |stack| {
        let person = Person::register(stack).await?;
        let ((here, _), (there, session)) = (person.sign_in().await?, person.sign_in().await?);
        for path in TOKEN_NEEDED {
            there.get(path).await?.ok()?;
        }
        let listed = here.get("/v1/sessions").await?.ok()?;
        ensure!(listed["sessions"].as_array().is_some_and(|sessions| sessions.len() == 2), "{listed}");
        let ended = text(&session["session"], "sessionId")?;
        here.send(Method::DELETE, &format!("/v1/sessions/{ended}"), "", None).await?.ok()?;
        let begun = Instant::now();
        for path in TOKEN_NEEDED {
            let refused = async || Ok(there.get(path).await?.reason() == "TOKEN_REVOKED");
            wait(&format!("{path} to refuse the token"), refused).await?;
            let response = there.get(path).await?;
            ensure!(response.status == 401, "{response:?}");
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
        let products = there.get("/v1/products?pageSize=1").await?;
        ensure!(products.status == 200, "a public method needs no token: {products:?}");
        let body = json!({"refreshToken": text(&session, "refreshToken")?});
        let refused = person.anonymous.post("/v1/sessions:refresh", body).await?;
        ensure!(refused.reason() == "REFRESH_TOKEN_INVALID", "{refused:?}");
        here.get("/v1/orders").await?.ok().map(drop)
    })
}

#[test]
fn a_refreshed_session_buys_and_a_lost_response_is_repeated() -> Result<()> {
    shared(async |stack| {
        let person = Person::register(stack).await?;
        let (_, session) = person.sign_in().await?;
        let body = json!({"refreshToken": text(&session, "refreshToken")?});
        let first = person.anonymous.post("/v1/sessions:refresh", body.clone()).await?.ok()?;
        let again = person.anonymous.post("/v1/sessions:refresh", body).await?.ok()?;
        ensure!(first["refreshToken"] == again["refreshToken"], "one successor");
        let customer = person.anonymous.with_session(&again)?;
        let market = Market { customer, ..Market::open(stack, 1).await? };
        let order = market.buy(1, "pm_card_visa").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await?;
        Ok(())
    })
}

#[test]
fn an_erased_user_leaves_orders_and_no_personal_data() -> Result<()> {
    shared(async |stack| {
        let person = Person::register(stack).await?;
        let (customer, _) = person.sign_in().await?;
        let market = Market { customer, ..Market::open(stack, 2).await? };
        let address = json!({"recipient": "Ada", "lines": ["1 Street"], "city": "London", "country": "GB"});
        let items = json!([{"productId": market.product_id, "quantity": 1}]);
        let body = json!({"items": items, "paymentMethod": "pm_card_visa", "shippingAddress": address});
        let order = market.customer.post("/v1/orders", body).await?.ok()?;
        let order = text(&order["order"], "orderId")?;
        market.customer.wait_for_state(order, "CONFIRMED").await?;
        market.customer.cancel(order).await?.ok()?;
        market.customer.send(Method::DELETE, "/v1/users/me", "", None).await?.ok()?;

        let body = json!({"email": person.email, "password": person.password});
        let refused = person.anonymous.post("/v1/sessions", body).await?;
        ensure!(refused.reason() == "CREDENTIALS_INVALID", "{refused:?}");
        let kept = market.operator.get(&format!("/v1/orders/{order}")).await?.ok()?;
        ensure!(kept["order"]["total"]["minor"] == "1250", "{kept}");
        let url = stack.layout.database("souk_order", "souk_order")?;
        wait("the shipping address to be deleted", async || {
            let mut session = PgConnection::connect(&url).await?;
            let query = sqlx::query_scalar("select count(*) from order_shipping_address where order_id = $1");
            let left: i64 = query.bind(Uuid::parse_str(order)?).fetch_one(&mut session).await?;
            session.close().await?;
            Ok(left == 0)
        })
        .await?;
        check(stack).await
    })
}
