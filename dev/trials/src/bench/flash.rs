//! A flash sale: all customers order one SKU, which has one row. Compares its orders per second with those of the same customers
//! on a thousand SKUs, alternating in one run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::{median, rush, wait_until_paid, with_stack};
use stack::controlled::Stack;

const SKUS: usize = 1_000;
const MAKERS: usize = 8;
const UNITS: u32 = 1_000_000;
/// The least ratio of orders on one SKU to orders on many.
const RATIO: f64 = 0.7;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(10);

pub async fn run() -> Result<()> {
    with_stack(measure).await
}

async fn measure(stack: &Stack) -> Result<()> {
    let operator = stack.operator().await?;
    let hot = [operator.stock("FLASH", "A thing that everybody wants", ("EUR", 1_250), UNITS).await?];
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let operator = operator.clone();
        makers.spawn(async move {
            let mut made = Vec::new();
            for sku in (maker..SKUS).step_by(MAKERS) {
                made.push(operator.stock(&format!("CALM-{sku:04}"), "A thing", ("EUR", 1_250), UNITS).await?);
            }
            anyhow::Ok(made)
        });
    }
    let mut spread = Vec::new();
    for made in makers.join_all().await {
        spread.append(&mut made?);
    }
    // Opens connections and fills caches.
    for products in [&hot[..], &spread] {
        rush(stack, products, ROUND / 5).await?;
    }
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    let (mut on_one, mut on_many) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        for (products, rates) in [(&hot[..], &mut on_one), (&spread, &mut on_many)] {
            let (placed, elapsed) = rush(stack, products, ROUND).await?;
            rates.push(placed as f64 / elapsed.as_secs_f64());
        }
        let last = |rates: &[f64]| rates.last().copied().context("a round was run");
        println!("round {round}: {:.0}/s on one SKU, {:.0}/s on {SKUS}", last(&on_one)?, last(&on_many)?);
    }
    wait_until_paid(stack).await?;
    let (one, many) = (median(&mut on_one), median(&mut on_many));
    println!(
        "flash sale: {one:.0} orders/s confirmed and paid on one SKU, {many:.0} on {SKUS}: ratio {:.2}",
        one / many
    );
    ensure!(one / many >= RATIO, "the ratio is below {RATIO}: one SKU is a bottleneck");
    Ok(())
}
