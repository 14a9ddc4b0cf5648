//! Processes are killed, and clients leave, during orders.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use contracts::souk::order::v1::ListOrdersRequest;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use sqlx::{Connection, PgConnection};
use stack::client::Client;
use stack::postgres::ADMINISTRATOR;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;
use trials::roles;

use crate::{Market, alone, check, order_id, wait, without_kafka};

/// Calls the order service directly, as the edge would retry a read. Returns whether there was a response.
async fn ask_role(role: &Endpoint, customer: &Client) -> Result<bool> {
    let Ok(channel) = role.connect().await else { return Ok(false) };
    let mut request = Request::new(ListOrdersRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {}", customer.token().await?).parse()?);
    match OrderServiceClient::new(channel).list_orders(request).await {
        Ok(_) => Ok(true),
        Err(status) => match status.get_details_error_info() {
            Some(info) if info.reason.starts_with("TOKEN_") || info.reason == "KEYS_UNAVAILABLE" => {
                bail!("{}: {status}", info.reason)
            }
            // The process was killed during the call, or has not connected to others yet.
            _ => Ok(false),
        },
    }
}

#[test]
fn a_restarted_role_knows_the_keys_of_tokens_before_it_answers() -> Result<()> {
    alone(async |stack| {
        let customer = stack.customer().await?;
        let role = roles::endpoint(&stack.layout.pki, "dev", stack.ports().grpc(roster::ORDER))?;
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
            ensure!(ask_role(&role, &customer).await?, "it reported ready, but does not respond");
        }
        Ok(())
    })
}

#[test]
fn without_kafka_orders_are_accepted_and_the_backlog_drains() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 100).await?;
        // At once: an order that waited for Kafka would be there when the request is repeated.
        let customer = market.customer.clone().impatient();
        stack.control("kill kafka").await?;
        let orders = without_kafka(stack, async || {
            let mut orders = Vec::new();
            for _ in 0..30 {
                orders.push(order_id(&customer.order(&market.product_id, 1, "pm_card_visa").await?)?);
            }
            Ok(orders)
        })
        .await?;
        for order in orders {
            market.customer.wait_for_state(&order, "CONFIRMED").await?;
        }
        check(stack).await
    })
}

/// Sessions that are idle in a transaction, and since when.
const IDLE: &str = "select pid, state_change::text from pg_stat_activity where state like 'idle in transaction%'";

/// Clients abandon half of 2,000 calls at a random moment.
#[test]
fn abandoned_calls_leave_no_open_transaction() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 3_000).await?;
        let url = stack.layout.database(ADMINISTRATOR, "postgres")?;
        let mut watch = PgConnection::connect(&url).await?;
        let mut customers = Vec::new();
        for _ in 0..10 {
            customers.push(stack.customer().await?);
        }
        let (mut calls, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for (client, customer) in customers.into_iter().enumerate() {
            let (product_id, answered) = (market.product_id.clone(), answered.clone());
            calls.spawn(async move {
                for call in 0..200 {
                    let order = || customer.order(&product_id, 1, "pm_card_visa");
                    if (client + call) % 2 == 0 {
                        let moment = Duration::from_micros(rand::random_range(0..20_000));
                        // Abandoned, whatever the outcome.
                        let _ = tokio::time::timeout(moment, order()).await;
                    } else {
                        order().await?.ok().context("a call that was not abandoned")?;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            });
        }
        // A transaction that was left open stays idle while other calls are answered. Time is no criterion, as the machine may be
        // slow.
        let (mut finished, mut idle) = (Vec::new(), HashMap::new());
        while !calls.is_empty() {
            tokio::select! {
                Some(outcome) = calls.join_next() => finished.push(outcome?),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            let seen: Vec<(i32, String)> = sqlx::query_as(IDLE).fetch_all(&mut watch).await?;
            let served = answered.load(Ordering::Relaxed);
            idle = seen.into_iter().map(|it| (it.clone(), idle.get(&it).copied().unwrap_or(served))).collect();
            for (session, since) in &idle {
                ensure!(served - since < 300, "{session:?} is idle in a transaction while 300 calls were answered");
            }
        }
        for outcome in finished {
            outcome?;
        }
        wait("no session to be idle in a transaction", async || {
            let mut watch = PgConnection::connect(&url).await?;
            let idle: Vec<(i32, String)> = sqlx::query_as(IDLE).fetch_all(&mut watch).await?;
            watch.close().await?;
            Ok(idle.is_empty())
        })
        .await?;
        let orders = stack.layout.database(ADMINISTRATOR, "souk_order")?;
        wait("all orders to be paid, or ended", async || {
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
