//! Figures: they equal what the database of orders says, also after they were rebuilt while orders go on.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use stack::client::Client;
use stack::controlled::Stack;

use crate::replay::database;
use crate::{Market, alone, wait};

/// By currency: paid orders, their totals, and what was refunded.
type Totals = Vec<(String, i64, i64, i64)>;

async fn by_orders(stack: &Stack) -> Result<Totals> {
    let sql = r#"select currency, count(*) filter (where captured),
                   coalesce(sum(total_minor) filter (where captured), 0)::bigint,
                   coalesce(sum(refunded_minor) filter (where captured), 0)::bigint
                 from "order" group by currency having count(*) filter (where captured) > 0 order by currency"#;
    Ok(sqlx::query_as(sql).fetch_all(&mut database(stack, "order").await?).await?)
}

async fn by_analytics(operator: &Client) -> Result<Totals> {
    let summary = operator.get("/v1/analytics/sales").await?.ok()?;
    let minor = |money: &Value| money["minor"].as_str().and_then(|it| it.parse().ok()).context("an amount");
    let totals = summary["totals"].as_array().context("a list")?.iter().map(|total| {
        let currency = total["gross"]["currency"].as_str().context("a currency")?.to_owned();
        let orders = total["paidOrders"].as_str().and_then(|it| it.parse().ok()).context("a number")?;
        Ok((currency, orders, minor(&total["gross"])?, minor(&total["refunded"])?))
    });
    totals.collect()
}

/// The sums of a file's days.
fn exported(csv: &str) -> Result<Totals> {
    let mut totals = BTreeMap::<&str, (i64, i64, i64)>::new();
    for line in csv.lines().skip(1).filter(|line| !line.starts_with("end,")) {
        let fields: Vec<_> = line.split(',').collect();
        let [_, currency, orders, gross, refunded, _] = fields[..] else { bail!("{line}: not six fields") };
        let sum = totals.entry(currency).or_default();
        *sum = (sum.0 + orders.parse::<i64>()?, sum.1 + gross.parse::<i64>()?, sum.2 + refunded.parse::<i64>()?);
    }
    Ok(totals.into_iter().map(|(currency, sum)| (currency.to_owned(), sum.0, sum.1, sum.2)).collect())
}

pub(crate) async fn wait_until_equal(stack: &Stack, operator: &Client) -> Result<()> {
    wait("the figures to equal the orders", async || Ok(by_analytics(operator).await? == by_orders(stack).await?)).await
}

async fn status(operator: &Client) -> Result<Value> {
    operator.get("/v1/analytics/projection").await?.ok()
}

#[test]
fn figures_equal_the_orders_also_after_a_rebuild_while_orders_go_on() -> Result<()> {
    alone(|stack| async move {
        let market = Market::open(stack, 100).await?;
        let operator = &market.operator;
        for quantity in [1, 2, 3] {
            let order = market.buy(quantity, "pm_card_visa").await?;
            market.wait_for_payment(&order, "CAPTURED").await?;
        }
        let cancelled = market.buy(1, "pm_card_visa").await?;
        let payment = async || {
            Ok::<_, anyhow::Error>(
                operator.get(&format!("/v1/orders/{cancelled}")).await?.ok()?["order"]["payment"].clone(),
            )
        };
        // An order that is cancelled before it knows of its capture is no sale.
        wait("the order to be paid", async || Ok(payment().await?["captured"] == true)).await?;
        let reason = json!({"reason": "CANCEL_REASON_CUSTOMER_REQUEST"});
        market.customer.post(&format!("/v1/orders/{cancelled}:cancel"), reason).await?.ok()?;
        wait("the refund to be part of the order", async || Ok(payment().await?["refundedMinor"] == "1250")).await?;
        market.buy(1, "pm_card_chargeDeclined").await?;
        wait_until_equal(stack, operator).await?;
        let (_, orders, gross, refunded) =
            by_analytics(operator).await?.into_iter().find(|it| it.0 == "EUR").context("some were paid")?;
        ensure!(orders >= 4 && gross >= 7 * 1_250 && refunded >= 1_250, "{orders} orders, {gross}, {refunded}");

        // Over REST, the parts of the stream are the body. Orders of other tests are still refunded, and a day may begin.
        wait("the exported sales to be those of the summary", async || {
            let export = operator.get("/v1/analytics/sales:export").await?;
            let csv = export.body.as_str().context("no JSON")?;
            ensure!(export.status == 200 && csv.starts_with("start,currency,"), "{export:?}");
            ensure!(csv.ends_with("end,,,,,\r\n"), "{csv}");
            Ok(exported(csv)? == by_analytics(operator).await?)
        })
        .await?;

        let before = status(operator).await?["live"]["projectionId"].clone();
        let begun = operator.post("/v1/analytics/projection:rebuild", json!({})).await?.ok()?;
        let built = &begun["projection"]["projectionId"];
        for _ in 0..10 {
            market.buy(1, "pm_card_visa").await?;
        }
        wait("the rebuilt figures to be shown", async || Ok(&status(operator).await?["live"]["projectionId"] == built))
            .await?;
        ensure!(before != *built, "another projection is shown");
        wait_until_equal(stack, operator).await
    })
}
