//! Consumers that read all topics again from the beginning.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use stack::controlled::Stack;
use stack::postgres::ADMINISTRATOR;
use tokio::task::JoinSet;
use trials::topics::delete_groups;

use crate::returns::paid;
use crate::{Market, alone, check, send, wait};

const CONSUMERS: [&str; 5] = ["analytics", "inventory", "notification", "order", "payment"];
const ORDERS: usize = 40;

pub(crate) async fn database(stack: &Stack, service: &str) -> Result<PgConnection> {
    let url = stack.layout.database(ADMINISTRATOR, &format!("souk_{service}"))?;
    Ok(PgConnection::connect(&url).await?)
}

/// A hash of each table of the services that consume, but for that of measurements.
async fn all_rows(stack: &Stack) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for service in CONSUMERS {
        let mut db = database(stack, service).await?;
        let tables = "select tablename::text, exists (select from information_schema.columns
                                                where table_name = tablename and column_name = 'projection_id')
                      from pg_tables where schemaname = 'public' and tablename not in ('_sqlx_migrations', 'partition_lag')";
        let tables: Vec<(String, bool)> = sqlx::query_as(tables).fetch_all(&mut db).await?;
        for (table, has_projections) in tables {
            // A job deletes those that are not shown any more.
            let shown = "where projection_id = (select projection_id from projection where state = 'LIVE')";
            let shown = if has_projections { shown } else { "" };
            // A job looks at erased users each minute, and writes when it will look again.
            let row = if table == "erased_user" { "(to_jsonb(it) - 'due_at')" } else { "it" };
            let rows = format!(
                "select md5(coalesce(string_agg({row}::text, ' ' order by {row}::text), '')) from \"{table}\" as it {shown}"
            );
            all.insert(format!("{service} {table}"), sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut db).await?);
        }
        db.close().await?;
    }
    Ok(all)
}

/// The number of duplicates that each consumer has skipped since its process started.
async fn repeats(stack: &Stack) -> Result<BTreeMap<String, f64>> {
    let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", stack.ports().admin())).await?.text().await?;
    let lines =
        page.lines().filter_map(|line| line.strip_prefix("souk_events_repeated_total{consumer=\"")?.split_once("\"} "));
    lines.map(|(of, count)| Ok((of.to_owned(), count.parse()?))).collect()
}

#[test]
fn reading_all_topics_again_changes_nothing() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, ORDERS as u32 + 10).await?;
        let mut calls = JoinSet::new();
        for number in 0..ORDERS {
            let (customer, product_id) = (market.customer.clone(), market.product_id.clone());
            let method = if number % 4 == 0 { "pm_card_chargeDeclined" } else { "pm_card_visa" };
            let items = json!([{"productId": product_id, "quantity": 1}]);
            let order = json!({"items": items, "paymentMethod": method});
            let place = async move {
                Ok::<_, anyhow::Error>((number, crate::order_id(&send(&customer, "/v1/orders", order).await?)?))
            };
            calls.spawn(place);
        }
        for placed in calls.join_all().await {
            let (number, order) = placed?;
            match number % 12 {
                // Some orders have failed already.
                0 | 3 | 6 | 9 => drop(market.customer.cancel(&order).await?),
                1 | 7 => {
                    paid(&market.operator, &order).await?;
                    let parcel = json!({"carrier": "A carrier", "trackingNumber": "1"});
                    send(&market.operator, &format!("/v1/orders/{order}:fulfill"), parcel).await?.ok()?;
                    let disposition = "RETURN_DISPOSITION_RESTOCK";
                    let item = json!({"productId": market.product_id, "quantity": 1, "disposition": disposition});
                    send(&market.operator, &format!("/v1/orders/{order}:return"), json!({"items": [item]}))
                        .await?
                        .ok()?;
                }
                _ => {}
            }
        }
        wait("the backlog to drain", async || {
            let sql = r#"select (select count(*) from "order" where state in ('PENDING', 'RESERVED') or (state = 'CONFIRMED' and not captured))
                           + (select count(*) from outbox)"#;
            let open: i64 = sqlx::query_scalar(sql).fetch_one(&mut database(stack, "order").await?).await?;
            let sql = "select (select count(*) from payment where due_at is not null) + (select count(*) from outbox)";
            let busy: i64 = sqlx::query_scalar(sql).fetch_one(&mut database(stack, "payment").await?).await?;
            let sql = "select (select count(*) from reservation where state = 'HELD') + (select count(*) from outbox)";
            let held: i64 = sqlx::query_scalar(sql).fetch_one(&mut database(stack, "inventory").await?).await?;
            let sql = "select count(*) from notification where state = 'PENDING' or refusal_unreported";
            let unsent: i64 = sqlx::query_scalar(sql).fetch_one(&mut database(stack, "notification").await?).await?;
            Ok((open, busy, held, unsent) == (0, 0, 0, 0))
        })
        .await?;
        crate::analytics::wait_until_equal(stack, &market.operator).await?;
        check(stack).await?;

        // How many events of the topics each consumer wants.
        let wanted =
            "select count(*) from order_event where type = any(select 'souk.order.v1.Order' || unnest($1::text[]))";
        let wanted = async |types: &[&str]| -> Result<i64> {
            Ok(sqlx::query_scalar(wanted).bind(types).fetch_one(&mut database(stack, "order").await?).await?)
        };
        let by_inventory =
            wanted(&["Placed", "Confirmed", "PaymentFailed", "Cancelled", "Expired", "ItemsReturned"]).await?;
        let by_analytics = "select count(*) from order_event
                            where type not in ('souk.order.v1.OrderPartlyFulfilled', 'souk.order.v1.OrderItemsReturned')";
        let by_analytics: i64 =
            sqlx::query_scalar(by_analytics).fetch_one(&mut database(stack, "order").await?).await?;
        let outcomes = ["Confirmed", "Fulfilled", "Rejected", "PaymentFailed", "Cancelled", "Expired"];
        let by_mail = "select count(*) from notification where kind in ('RESET_PASSWORD', 'VERIFY_EMAIL')";
        let by_mail: i64 = sqlx::query_scalar(by_mail).fetch_one(&mut database(stack, "notification").await?).await?;
        let by_notification = wanted(&outcomes).await? + by_mail;
        let by_payment =
            wanted(&["Reserved", "Confirmed", "PaymentFailed", "Cancelled", "Expired", "ItemsReturned"]).await?;
        let sold = "select sum(version)::bigint from reservation";
        let sold: i64 = sqlx::query_scalar(sold).fetch_one(&mut database(stack, "inventory").await?).await?;
        let paid = "select sum(version)::bigint from payment";
        let paid: i64 = sqlx::query_scalar(paid).fetch_one(&mut database(stack, "payment").await?).await?;

        let before = all_rows(stack).await?;
        stack.control("stop souk").await?;
        delete_groups(&stack.layout, &CONSUMERS).await?;
        stack.control("start souk").await?;
        wait("everything to be read again", async || {
            let seen = repeats(stack).await?;
            let all = [
                ("analytics", by_analytics),
                ("inventory", by_inventory),
                ("notification", by_notification),
                ("payment", by_payment),
                ("order", sold + paid),
            ];
            Ok(all.iter().all(|(consumer, count)| seen.get(*consumer).is_some_and(|seen| *seen >= *count as f64)))
        })
        .await?;
        let after = all_rows(stack).await?;
        let changed: Vec<_> = before.keys().filter(|table| before[*table] != after[*table]).collect();
        ensure!(changed.is_empty(), "changed: {changed:?}");
        let order = market.buy(1, "pm_card_visa").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await.context("orders go on")?;
        check(stack).await
    })
}
