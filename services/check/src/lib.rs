//! `souk check`: do the promises hold? One line for each invariant, and exit code 1 if one does not.
//!
//! It can be run beside a shop that is open. What looks wrong is looked at again a little later, as an order on its way is
//! never in the same place everywhere; only what is wrong about the same thing each time is a violation.
//!
//! However large the shop is, its memory is bounded: tables are read by ranges of ids ([`walk`]), and where something has no
//! such order, as topics and stored answers have none, a few bytes are kept of so many things at a time.
//!
//! Its tests plant violations of each kind, and it must find them.

mod discards;
mod events;
mod journal;
mod money;
mod pattern;
mod progress;
mod report;
mod secrets;
mod walk;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use bus::topics::TOPICS;
use chassis::boot::config::{Secret, parse_duration, parse_secure_url};
use chassis::boot::db;
use chassis::check::Finding;
use chassis::event::dead_letter;
use chassis::{Clock, Unexpected};
use clap::Args;
use payment::check::Provider;
use sqlx::PgPool;
use time::OffsetDateTime;

use discards::Discards;
use journal::{Coverage, Journal};
use progress::Progress;
use secrets::Scan;
use walk::single;

const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How many dead letters are looked at: more change nothing about the verdict.
const MANY: i64 = 1_000;

/// Where everything that is checked is.
#[derive(Debug, Args)]
pub struct Config {
    /// Kafka's bootstrap servers, comma-separated.
    #[arg(
        id = "SOUK_KAFKA_BROKERS",
        long = "kafka-brokers",
        env = "SOUK_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092"
    )]
    kafka_brokers: String,
    /// The payment provider, whose intents and refunds our books are compared with. None: they are not.
    #[arg(
        id = "SOUK_CHECK_PROVIDER_URL",
        long = "provider-url",
        env = "SOUK_CHECK_PROVIDER_URL",
        value_parser = parse_secure_url
    )]
    provider_url: Option<String>,
    /// A file that holds the provider's secret key, in its first line: the payment service's, or one that may only read payment
    /// intents, charges and refunds.
    #[arg(id = "PAYMENT_PROVIDER_KEY_FILE", long = "provider-key-file", env = "PAYMENT_PROVIDER_KEY_FILE")]
    provider_key_file: Option<PathBuf>,
    /// How often the provider may be asked in any second, by this and all replicas together: what the payment service has.
    #[arg(
        id = "PAYMENT_PROVIDER_RATE",
        long = "provider-rate",
        env = "PAYMENT_PROVIDER_RATE",
        default_value_t = 25,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    provider_rate: u32,
    /// How long a question to a database may take.
    #[arg(
        id = "SOUK_CHECK_STATEMENT_TIMEOUT",
        long = "statement-timeout",
        env = "SOUK_CHECK_STATEMENT_TIMEOUT",
        default_value = "10m",
        value_parser = parse_duration
    )]
    statement_timeout: Duration,
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
}

/// The database of each service, with its role.
#[derive(Debug, Clone, Copy)]
pub struct Databases<'a> {
    pub user: &'a Secret,
    pub product: &'a Secret,
    pub inventory: &'a Secret,
    pub order: &'a Secret,
    pub payment: &'a Secret,
}

impl Config {
    fn provider_key(&self) -> Result<String, String> {
        let file = self.provider_key_file.as_ref().ok_or("is required to ask SOUK_CHECK_PROVIDER_URL")?;
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{variable}: {why}")]
    Config { variable: &'static str, why: String },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("the topics: {0}")]
    Topics(#[from] bus::Error),
    #[error("the provider: {0}")]
    Provider(String),
    #[error("the journal {path:?}, line {line}: {why}")]
    Journal { path: PathBuf, line: usize, why: String },
}

/// How much is in memory at once.
struct Sizes {
    /// How many orders, and rows of other tables, are read at once.
    range: i64,
    /// Of how many things a few bytes are kept: a table of 2^20 places, with 19 to 29 bytes each.
    kept: i64,
}

const SIZES: Sizes = Sizes { range: 10_000, kept: 900_000 };

struct Shop {
    user: PgPool,
    product: PgPool,
    inventory: PgPool,
    order: PgPool,
    payment: PgPool,
    kafka_brokers: String,
    provider: Option<Provider>,
    journal: Option<Journal>,
    at_rest: bool,
    sizes: Sizes,
    /// How soon what looks wrong is looked at again.
    look_again: Duration,
}

impl Shop {
    fn open(config: &Config, databases: &Databases<'_>) -> Result<Self, Error> {
        let pool = |url, variable| {
            db::patient_pool(url, 4, config.statement_timeout).map_err(|why| Error::Config { variable, why })
        };
        let payment = pool(databases.payment, "PAYMENT_DATABASE_URL")?;
        let provider = config.provider_url.as_deref().map(|url| {
            let key =
                config.provider_key().map_err(|why| Error::Config { variable: "PAYMENT_PROVIDER_KEY_FILE", why })?;
            Provider::new(url, &key, config.provider_rate, payment.clone())
                .map_err(|why| Error::Config { variable: "SOUK_CHECK_PROVIDER_URL", why })
        });
        let provider = provider.transpose()?;
        let coverage = if config.journal_is_complete { Coverage::Complete } else { Coverage::Partial };
        let attempts = config.journal.as_deref().map(journal::read).transpose()?;
        Ok(Self {
            user: pool(databases.user, "USER_DATABASE_URL")?,
            product: pool(databases.product, "PRODUCT_DATABASE_URL")?,
            inventory: pool(databases.inventory, "INVENTORY_DATABASE_URL")?,
            order: pool(databases.order, "ORDER_DATABASE_URL")?,
            payment,
            kafka_brokers: config.kafka_brokers.clone(),
            provider,
            journal: attempts.map(|attempts| Journal { attempts, coverage }),
            at_rest: config.at_rest,
            sizes: SIZES,
            look_again: LOOK_AGAIN,
        })
    }

    /// What is judged a minute after the last change is judged at once if that was the last one.
    fn as_of(&self) -> OffsetDateTime {
        Clock::System.now() + if self.at_rest { time::Duration::DAY } else { time::Duration::ZERO }
    }
}

/// Whether all is well.
pub async fn run(config: &Config, databases: &Databases<'_>) -> Result<bool, Error> {
    let shop = Shop::open(config, databases)?;
    let progress = Progress::begin();
    let mut findings = look(&shop).await?;
    // What stands somewhere is not on its way: once is enough.
    let scan = scan(&shop).await?;
    drop(progress);
    findings.push(scan.finding.clone());
    report::report(&findings);
    for (place, tables) in &scan.looked_at {
        let counts: Vec<_> = tables.iter().map(|(table, count)| format!("{table} {count}")).collect();
        println!("        {place}: {}", counts.join(", "));
    }
    Ok(findings.iter().all(|finding| finding.violations.is_empty()))
}

async fn look(shop: &Shop) -> Result<Vec<Finding>, Error> {
    let Shop { inventory, order, payment, kafka_brokers: brokers, sizes: Sizes { range, kept }, .. } = shop;
    let discards = &Discards::read(&[inventory, order, payment], payment).await?;
    progress::set("I1: stock".to_owned());
    let mut findings = shop.repeat(|| single(inventory::check::check_stock(inventory))).await?;
    findings.extend(walk::walk_orders(shop, discards).await?);
    findings.extend(walk::walk_payments(shop).await?);
    let services = [inventory, order, payment];
    findings.extend(shop.repeat(|| single(check_parked(&services))).await?);
    findings.push(discards.finding());
    let events = |after| order::check::versions(order, after, *range);
    let topic = || single(events::check(brokers, "souk.order.v1", order, events, *kept, &discards.excuses));
    findings.extend(shop.repeat(topic).await?);
    let events = |after| inventory::check::versions(inventory, after, *range);
    let topic = || single(events::check(brokers, "souk.inventory.v1", inventory, events, *kept, &discards.excuses));
    findings.extend(shop.repeat(topic).await?);
    let events = |after| payment::check::versions(payment, after, *range);
    let topic = || single(events::check(brokers, "souk.payment.v1", payment, events, *kept, &discards.excuses));
    findings.extend(shop.repeat(topic).await?);
    progress::set("I6: answers to requests".to_owned());
    findings.extend(shop.repeat(|| single(order::check::check_answers(order, Clock::System.now(), *kept))).await?);
    if let Some(journal) = &shop.journal {
        progress::set("I6, I8: the journal".to_owned());
        findings.extend(shop.repeat(|| journal.check(order, *range)).await?);
    }
    Ok(findings)
}

async fn scan(shop: &Shop) -> Result<Scan, Error> {
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
        scan = scan.topic(&shop.kafka_brokers, topic).await?;
    }
    Ok(scan)
}

/// I4 again: a key that is parked waits for somebody. That something else of it was discarded once is no excuse.
async fn check_parked(databases: &[&PgPool]) -> Result<Finding, Unexpected> {
    let mut finding = Finding::new("I4", "parked keys");
    for db in databases {
        for letter in dead_letter::list(db, None, 0, MANY).await? {
            finding.look(letter.record.key, Some(format!("parked for {}: {}", letter.consumer, letter.error)));
        }
    }
    Ok(finding)
}
