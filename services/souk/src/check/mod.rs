//! `souk check`: do the promises hold? One line for each invariant, and exit code 1 if one does not.
//!
//! It can be run beside a shop that is open. What looks wrong is looked at again a little later, as an order on its way is
//! never in the same place everywhere; only what is wrong about the same thing each time is a violation.
//!
//! With `--self-test` it checks itself: it plants violations of each kind and must find them.

mod discards;
mod events;
mod journal;
mod money;
mod pattern;
mod plants;
mod secrets;
mod self_test;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bus::topics::TOPICS;
use chassis::config::Secret;
use chassis::{Clock, Finding, MOST_VIOLATIONS, Unexpected, db, dead_letter};
use clap::Args;
use inventory::check::Holding;
use order::check::End;
use sqlx::PgPool;
use uuid::Uuid;

use crate::migrate::Databases;
use discards::Discards;
use journal::{Attempt, Coverage};
use secrets::Scan;

const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How many violations of one kind are printed.
const SHOWN: usize = 20;
/// How many dead letters are looked at: more change nothing about the verdict.
const MANY: i64 = 1_000;
/// How many rows are read at once.
const RANGE: i64 = 10_000;

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
    /// What load clients wrote down of their attempts: a line of JSON for each, with `attempt`, `key`, `kind` (`create` for
    /// CreateOrder), `outcome` (`ok`, `refused`, `unknown`), `order_id` if there was one, and `at`.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Every order that there is must be of an attempt in the journal.
    #[arg(long, requires = "journal")]
    journal_is_complete: bool,
    /// Nothing is under way any more: every order must have settled and be paid for, however young it is.
    #[arg(long)]
    at_rest: bool,
    /// Checks the checks instead: plants violations in databases that are made for it and dropped afterwards, and must find
    /// each of them.
    #[arg(long)]
    self_test: bool,
    /// For `--self-test`: a database administrator, who may create databases.
    #[arg(
        id = "SOUK_MIGRATE_DATABASE_URL",
        long = "database-url",
        env = "SOUK_MIGRATE_DATABASE_URL",
        default_value = "postgres://postgres@127.0.0.1:15432/postgres",
        hide_env_values = true
    )]
    admin: Secret,
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
    #[error("the journal {path:?}, line {line}: {why}")]
    Journal { path: PathBuf, line: usize, why: String },
    #[error("a database for the self-test: {0}")]
    Scratch(String),
}

struct Shop {
    user: PgPool,
    product: PgPool,
    inventory: PgPool,
    order: PgPool,
    payment: PgPool,
    attempts: Option<(Vec<Attempt>, Coverage)>,
}

/// Whether all is well.
pub(crate) async fn run(config: &Config) -> Result<bool, Error> {
    if config.self_test {
        return self_test::run(&config.admin).await;
    }
    let pool = |url, variable| db::pool(url, 4).map_err(|why| Error::Config { variable, why });
    let coverage = if config.journal_is_complete { Coverage::Complete } else { Coverage::Partial };
    let attempts = config.journal.as_deref().map(journal::read).transpose()?;
    let shop = Shop {
        user: pool(&config.databases.user, "USER_DATABASE_URL")?,
        product: pool(&config.databases.product, "PRODUCT_DATABASE_URL")?,
        inventory: pool(&config.databases.inventory, "INVENTORY_DATABASE_URL")?,
        order: pool(&config.databases.order, "ORDER_DATABASE_URL")?,
        payment: pool(&config.databases.payment, "PAYMENT_DATABASE_URL")?,
        attempts: attempts.map(|attempts| (attempts, coverage)),
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
    // What stands somewhere is not on its way: once is enough.
    let scan = scan(config, &shop).await?;
    findings.push(scan.finding.clone());
    report(&findings);
    for (place, tables) in &scan.looked_at {
        let counts: Vec<_> = tables.iter().map(|(table, count)| format!("{table} {count}")).collect();
        println!("        {place}: {}", counts.join(", "));
    }
    Ok(findings.iter().all(|finding| finding.violations.is_empty()))
}

async fn scan(config: &Config, shop: &Shop) -> Result<Scan, Error> {
    let mut scan = Scan::begin(&shop.user).await?;
    let services = [
        ("user", &shop.user),
        ("product", &shop.product),
        ("inventory", &shop.inventory),
        ("order", &shop.order),
        ("payment", &shop.payment),
    ];
    for (service, db) in services {
        scan.database(service, db).await?;
    }
    for topic in TOPICS {
        scan = scan.topic(&config.kafka_brokers, topic).await?;
    }
    Ok(scan)
}

/// Always the same findings, in the same order.
async fn look(config: &Config, shop: &Shop) -> Result<Vec<Finding>, Error> {
    // What is judged a minute after the last change is judged at once if that was the last one.
    let as_of = Clock::System.now() + if config.at_rest { time::Duration::DAY } else { time::Duration::ZERO };
    let ends = order::check::ends(&shop.order, as_of).await?;
    let mut findings = vec![inventory::check::check_stock(&shop.inventory).await?];
    if let Some(url) = &config.provider_url {
        let theirs = money::fetch(url).await?;
        findings.push(money::compare(&payment::check::books(&shop.payment).await?, &theirs, &ends));
    }
    let (brokers, Shop { inventory, order, payment, .. }) = (&config.kafka_brokers, shop);
    let discards = Discards::read(&[inventory, order, payment], payment).await?;
    findings.extend([
        payment::check::check_ledger(payment).await?,
        order::check::check_settled(order, as_of).await?,
        compare_stock(&ends, &inventory::check::held_or_sold(inventory).await?),
        check_parked(&[inventory, order, payment]).await?,
        discards.finding(),
        events::check(brokers, "souk.order.v1", order, |after| order::check::versions(order, after, RANGE)).await?,
        events::check(brokers, "souk.inventory.v1", inventory, |after| {
            inventory::check::versions(inventory, after, RANGE)
        })
        .await?,
        events::check(brokers, "souk.payment.v1", payment, |after| payment::check::versions(payment, after, RANGE))
            .await?,
        order::check::check_answers(order, Clock::System.now()).await?,
        order::check::check_orders(order).await?,
        inventory::check::check_reservations(inventory).await?,
        payment::check::check_payments(payment).await?,
    ]);
    if let Some((attempts, coverage)) = &shop.attempts {
        let orders = order::check::order_ids(order).await?;
        let made = order::check::orders_by_key(order).await?;
        findings.push(journal::check_once(attempts, &made, &orders, *coverage));
        findings.push(journal::check_durable(attempts, &orders));
    }
    discards.excuse(&mut findings);
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
async fn check_parked(databases: &[&PgPool]) -> Result<Finding, Unexpected> {
    let mut finding = Finding::new("I4", "parked keys");
    for db in databases {
        for letter in dead_letter::list(db, None, 0, MANY).await? {
            finding.look(letter.record.key, Some(format!("parked for {}: {}", letter.consumer, letter.error)));
        }
    }
    Ok(finding)
}

/// Every invariant, and what is not asked here.
const INVARIANTS: [(&str, &str); 11] = [
    ("I1", ""),
    ("I2", "the provider's ledger was not compared: SOUK_CHECK_PROVIDER_URL is not set"),
    ("I3", ""),
    ("I4", ""),
    ("I5", ""),
    ("I6", ""),
    ("I7", "there are no notifications yet"),
    ("I8", "no client's journal was given (--journal)"),
    ("I9", ""),
    ("I10", "no table says it: the tests of every RPC call it as somebody else, at the role and at the edge"),
    ("I11", ""),
];

fn report(findings: &[Finding]) {
    for (invariant, unasked) in INVARIANTS {
        let findings: Vec<_> = findings.iter().filter(|finding| finding.invariant == invariant).collect();
        if findings.is_empty() {
            println!("{invariant:4}--  {unasked}");
            continue;
        }
        let violated = findings.iter().any(|finding| !finding.violations.is_empty());
        let counts: Vec<_> = findings.iter().map(|finding| describe(finding)).collect();
        let verdict = if violated { "VIOLATED" } else { "ok" };
        println!("{invariant:4}{verdict}  {}", counts.join(", "));
        let shown = findings.iter().flat_map(|finding| finding.violations.iter().take(SHOWN));
        for (thing, violation) in shown {
            println!("        {thing}: {violation}");
        }
    }
}

fn describe(finding: &Finding) -> String {
    let Finding { things, count, violations, excused, .. } = finding;
    let wrong = match violations.len() {
        0 => String::new(),
        MOST_VIOLATIONS => format!("at least {MOST_VIOLATIONS} of "),
        wrong => format!("{wrong} of "),
    };
    let excused = if *excused == 0 { String::new() } else { format!(" ({excused} wrong by what was discarded)") };
    format!("{wrong}{count} {things}{excused}")
}
