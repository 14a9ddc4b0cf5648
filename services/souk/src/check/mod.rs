//! `souk check`: do the promises hold? One line for each invariant, and exit code 1 if one does not.
//!
//! It can be run beside a shop that is open. What looks wrong is looked at again a little later, as an order on its way is
//! never in the same place everywhere; only what stays wrong is a violation.

mod events;
mod money;

#[cfg(test)]
mod tests;

use std::time::Duration;

use chassis::{Clock, Finding, Unexpected, db};
use clap::Args;
use sqlx::PgPool;

use crate::migrate::Databases;

const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_secs(2);

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
        findings = look(config, &shop).await?;
    }
    for finding in &findings {
        report(finding);
    }
    if config.provider_url.is_none() {
        println!("I2 --  the provider's ledger was not compared: SOUK_CHECK_PROVIDER_URL is not set");
    }
    Ok(findings.iter().all(|finding| finding.violations.is_empty()))
}

async fn look(config: &Config, shop: &Shop) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    let mut findings = vec![inventory::check::check_stock(&shop.inventory).await?];
    if let Some(url) = &config.provider_url {
        let theirs = money::fetch(url).await?;
        findings.push(money::compare(&payment::check::books(&shop.payment).await?, &theirs));
    }
    findings.extend([
        payment::check::check_ledger(&shop.payment).await?,
        order::check::check_settled(&shop.order, now).await?,
        check_sold(shop, now).await?,
        events::check(&config.kafka_brokers, "souk.order.v1", &shop.order, order::check::versions(&shop.order)).await?,
        events::check(
            &config.kafka_brokers,
            "souk.inventory.v1",
            &shop.inventory,
            inventory::check::versions(&shop.inventory),
        )
        .await?,
        events::check(&config.kafka_brokers, "souk.payment.v1", &shop.payment, payment::check::versions(&shop.payment))
            .await?,
        order::check::check_orders(&shop.order).await?,
        inventory::check::check_reservations(&shop.inventory).await?,
        payment::check::check_payments(&shop.payment).await?,
    ]);
    Ok(findings)
}

/// I4, the other half: what is confirmed for a while has its stock sold.
async fn check_sold(shop: &Shop, now: time::OffsetDateTime) -> Result<Finding, Error> {
    let confirmed = order::check::long_confirmed(&shop.order, now).await?;
    let sold: std::collections::HashSet<_> =
        inventory::check::sold(&shop.inventory, &confirmed).await?.into_iter().collect();
    let mut finding = Finding::new("I4", "confirmed orders");
    for order in confirmed {
        finding.look((!sold.contains(&order)).then(|| format!("{order} is confirmed, and its stock is not sold")));
    }
    Ok(finding)
}

fn report(finding: &Finding) {
    let Finding { invariant, things, count, violations } = finding;
    if violations.is_empty() {
        return println!("{invariant} ok  {count} {things}");
    }
    println!("{invariant} VIOLATED  {} of {count} {things}", violations.len());
    for violation in violations.iter().take(20) {
        println!("      {violation}");
    }
}
