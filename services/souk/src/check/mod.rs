//! `souk check`: do the promises hold? One line for each invariant, and exit code 1 if one does not.
//!
//! It can be run beside a shop that is open. What looks wrong is looked at again a little later, as an order on its way is
//! never in the same place everywhere; only what is wrong about the same thing each time is a violation.

mod events;
mod money;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use chassis::{Clock, Finding, Unexpected, db, dead_letter};
use clap::Args;
use inventory::check::Holding;
use order::check::End;
use sqlx::PgPool;
use uuid::Uuid;

use crate::migrate::Databases;

const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How many violations of one kind are printed.
const SHOWN: usize = 20;
/// How many dead letters are looked at: more change nothing about the verdict.
const MANY: i64 = 1_000;

/// Where everything that is checked is.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(flatten)]
    databases: Databases,
    /// Kafka's bootstrap servers, comma-separated.
    #[arg(
        id = "SOUK_KAFKA_BROKERS",
        long = "kafka-brokers",
        env = "SOUK_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092"
    )]
    kafka_brokers: String,
    /// The payment provider's simulator, whose ledger ours is compared with. None: it is not.
    #[arg(id = "SOUK_CHECK_PROVIDER_URL", long = "provider-url", env = "SOUK_CHECK_PROVIDER_URL")]
    provider_url: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{variable}: {why}")]
    Config { variable: &'static str, why: String },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("the topics: {0}")]
    Topics(#[from] bus::Error),
    #[error("the provider's ledger: {0}")]
    Provider(String),
}

struct Shop {
    inventory: PgPool,
    order: PgPool,
    payment: PgPool,
}

/// Whether all is well.
pub(crate) async fn run(config: &Config) -> Result<bool, Error> {
    let pool = |url, variable| db::pool(url, 4).map_err(|why| Error::Config { variable, why });
    let shop = Shop {
        inventory: pool(&config.databases.inventory, "INVENTORY_DATABASE_URL")?,
        order: pool(&config.databases.order, "ORDER_DATABASE_URL")?,
        payment: pool(&config.databases.payment, "PAYMENT_DATABASE_URL")?,
    };
    let mut findings = look(config, &shop).await?;
    for _ in 1..LOOKS {
        if findings.iter().all(|finding| finding.violations.is_empty()) {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        let earlier = std::mem::replace(&mut findings, look(config, &shop).await?);
        for (finding, earlier) in findings.iter_mut().zip(&earlier) {
            finding.keep_repeated(earlier);
        }
    }
    for finding in &findings {
        report(finding);
    }
    if config.provider_url.is_none() {
        println!("I2 --  the provider's ledger was not compared: SOUK_CHECK_PROVIDER_URL is not set");
    }
    Ok(findings.iter().all(|finding| finding.violations.is_empty()))
}

/// Always the same findings, in the same order.
async fn look(config: &Config, shop: &Shop) -> Result<Vec<Finding>, Error> {
    let ends = order::check::ends(&shop.order, Clock::System.now()).await?;
    let mut findings = vec![inventory::check::check_stock(&shop.inventory).await?];
    if let Some(url) = &config.provider_url {
        let theirs = money::fetch(url).await?;
        findings.push(money::compare(&payment::check::books(&shop.payment).await?, &theirs, &ends));
    }
    let (brokers, Shop { inventory, order, payment }) = (&config.kafka_brokers, shop);
    findings.extend([
        payment::check::check_ledger(payment).await?,
        order::check::check_settled(order, Clock::System.now()).await?,
        compare_stock(&ends, &inventory::check::held_or_sold(inventory).await?),
        check_parked(shop).await?,
        events::check(brokers, "souk.order.v1", order, async || order::check::versions(order).await).await?,
        events::check(brokers, "souk.inventory.v1", inventory, async || inventory::check::versions(inventory).await)
            .await?,
        events::check(brokers, "souk.payment.v1", payment, async || payment::check::versions(payment).await).await?,
        order::check::check_orders(order).await?,
        inventory::check::check_reservations(inventory).await?,
        payment::check::check_payments(payment).await?,
    ]);
    Ok(findings)
}

/// I4, the other half: what was sold has its stock sold, and what was called off holds none.
fn compare_stock(ends: &HashMap<Uuid, End>, held: &HashMap<Uuid, Holding>) -> Finding {
    let mut finding = Finding::new("I4", "orders in stock");
    for (order, end) in ends {
        let why = match (end, held.get(order)) {
            (End::Sold, Some(Holding::Sold)) | (End::CalledOff, None) => None,
            (End::Sold, held) => Some(format!("it is confirmed, and its stock is not sold but {held:?}")),
            (End::CalledOff, Some(held)) => Some(format!("it was called off, and its stock is {held:?}")),
        };
        finding.look(order, why);
    }
    finding
}

/// I4 again: a key that is parked waits for somebody.
async fn check_parked(shop: &Shop) -> Result<Finding, Error> {
    let mut finding = Finding::new("I4", "parked keys");
    for db in [&shop.inventory, &shop.order, &shop.payment] {
        for letter in dead_letter::list(db, None, 0, MANY).await? {
            finding.look(letter.record.key, Some(format!("parked for {}: {}", letter.consumer, letter.error)));
        }
    }
    Ok(finding)
}

fn report(finding: &Finding) {
    let Finding { invariant, things, count, violations } = finding;
    if violations.is_empty() {
        return println!("{invariant} ok  {count} {things}");
    }
    println!("{invariant} VIOLATED  {} of {count} {things}", violations.len());
    for (thing, violation) in violations.iter().take(SHOWN) {
        println!("      {thing}: {violation}");
    }
}
