//! Things die in the middle of business.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contracts::souk::order::v1::ListOrdersRequest;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use dev::shop::Client;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{Market, alone, check, order_id, wait};

const CLIENTS: usize = 8;
const ORDERS: usize = 500;
const KILLS: usize = 30;

/// One purchase as a careful client makes it: the same key until there is an answer.
async fn insist(customer: &Client, product_id: &str) -> Result<String> {
    let key = Uuid::now_v7().to_string();
    let items = json!([{"productId": product_id, "quantity": 1}]);
    let body = json!({"items": items, "paymentMethod": "pm_card_visa"});
    let begun = Instant::now();
    loop {
        match customer.send(Method::POST, "/v1/orders", &key, Some(body.clone())).await {
            Ok(answer) if answer.status.is_success() => return order_id(&answer),
            Ok(answer) if answer.status.is_client_error() && answer.status.as_u16() != 409 => answer.ok().map(drop)?,
            Ok(_) | Err(_) => {}
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "no answer within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once nothing is killed any more, the edge finds out by itself that all roles are back.
async fn wait_for_recovery(market: &Market) -> Result<()> {
    let paths = ["/v1/users/me", "/v1/products", &format!("/v1/stock/{}", market.sku), "/v1/orders", "/v1/payments"];
    for path in paths {
        let what = format!("{path} to be served again");
        wait(&what, async || Ok(market.operator.get(path).await?.status.as_u16() != 503)).await?;
    }
    Ok(())
}

#[test]
fn souk_is_killed_thirty_times_while_orders_are_placed() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, ORDERS as u32 + 10).await?;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (customer, product_id) = (stack.customer().await?, market.product_id.clone());
            clients.spawn(async move {
                let mut placed = Vec::new();
                for _ in 0..ORDERS.div_ceil(CLIENTS) {
                    placed.push(insist(&customer, &product_id).await?);
                }
                anyhow::Ok((customer, placed))
            });
        }
        let killer = async {
            for _ in 0..KILLS {
                let pause = rand::random_range(50..400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                stack.control("kill souk").await?;
            }
            anyhow::Ok(())
        };
        let (killed, placed) = tokio::join!(killer, clients.join_all());
        killed?;
        wait_for_recovery(&market).await?;
        let mut sold = 0;
        for outcome in placed {
            let (customer, orders) = outcome?;
            for order in orders {
                let settled = |order: &serde_json::Value| {
                    order["state"] == "ORDER_STATE_CONFIRMED" && order["payment"]["captured"] == true
                };
                customer.wait_for(&order, Duration::from_secs(90), "confirmed and paid", settled).await?;
                sold += 1;
            }
        }
        market.wait_for_available(ORDERS as i64 + 10 - sold).await?;
        check(stack).await
    })
}

/// Asks the order service itself, for the edge would wait a little and repeat a read. Whether anybody answered.
async fn ask_role(role: &Endpoint, customer: &Client) -> Result<bool> {
    let Ok(channel) = role.connect().await else { return Ok(false) };
    let mut request = Request::new(ListOrdersRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", customer.token()).parse()?);
    match OrderServiceClient::new(channel).list_orders(request).await {
        Ok(_) => Ok(true),
        Err(status) => match status.get_details_error_info() {
            Some(info) => bail!("{}: {status}", info.reason),
            // The process was gone in the middle of it.
            None => Ok(false),
        },
    }
}

#[test]
fn a_restarted_role_knows_the_keys_of_tokens_before_it_answers() -> Result<()> {
    alone(async |stack| {
        let customer = stack.customer().await?;
        let role = Endpoint::from_shared(format!("http://127.0.0.1:{}", stack.ports().grpc(5)))?;
        for _ in 0..5 {
            let asking = async {
                loop {
                    if let Err(error) = ask_role(&role, &customer).await {
                        return error;
                    }
                }
            };
            tokio::select! {
                killed = stack.control("kill souk") => killed.map(drop)?,
                error = asking => return Err(error),
            }
            ensure!(ask_role(&role, &customer).await?, "it said that it is ready, and nobody answers");
        }
        Ok(())
    })
}

#[test]
fn without_kafka_orders_are_accepted_and_the_backlog_drains() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 100).await?;
        stack.control("kill kafka").await?;
        stack.control("stop kafka").await?;
        let mut orders = Vec::new();
        for _ in 0..30 {
            orders.push(market.buy(1, "pm_card_visa").await?);
        }
        stack.control("start kafka").await?;
        for order in orders {
            market.customer.wait_for_state(&order, "CONFIRMED").await?;
        }
        check(stack).await
    })
}

/// Half of 2,000 calls are given up by their client at a random moment.
#[test]
fn clients_that_leave_harm_nobody() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 3_000).await?;
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", stack.ports().postgres());
        let mut watch = PgConnection::connect(&url).await?;
        let mut calls = JoinSet::new();
        for client in 0..10 {
            let (customer, product_id) = (stack.customer().await?, market.product_id.clone());
            calls.spawn(async move {
                for call in 0..200 {
                    let order = customer.order(&product_id, 1, "pm_card_visa");
                    if (client + call) % 2 == 0 {
                        let moment = Duration::from_micros(rand::random_range(0..20_000));
                        // It leaves, whatever became of it.
                        let _ = tokio::time::timeout(moment, order).await;
                    } else {
                        order.await?.ok().context("a call that was not given up")?;
                    }
                }
                anyhow::Ok(())
            });
        }
        let mut finished = Vec::new();
        while !calls.is_empty() {
            tokio::select! {
                Some(outcome) = calls.join_next() => finished.push(outcome?),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            let idle: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where state like 'idle in transaction%' and state_change < now() - interval '1 second'",
            )
            .fetch_one(&mut watch)
            .await?;
            ensure!(idle == 0, "{idle} sessions are idle in transaction for over a second");
        }
        for outcome in finished {
            outcome?;
        }
        let orders = format!("postgres://postgres@127.0.0.1:{}/souk_order", stack.ports().postgres());
        wait("all orders to settle", async || {
            let mut db = PgConnection::connect(&orders).await?;
            let open: i64 = sqlx::query_scalar(
                r#"select count(*) from "order"
                   where state in ('PENDING', 'RESERVED') or (state = 'CONFIRMED' and not captured)"#,
            )
            .fetch_one(&mut db)
            .await?;
            db.close().await?;
            Ok(open == 0)
        })
        .await?;
        check(stack).await
    })
}
