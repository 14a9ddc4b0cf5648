//! `souk check` reads the databases of all services, all topics and the payment provider, prints one line for each invariant
//! ([`invariants`]), and reports whether any is violated.
//!
//! - **While orders are in progress.** Services consume an event at different times, so a violation is checked again a little
//!   later ([`recheck`]): only one that every check finds is reported.
//! - **In bounded memory.** Tables are read by ranges of ids, 10,000 rows at a time: orders together with their reservations,
//!   payments, notifications and figures ([`orders`]). Topics and stored responses have no index for this, so they are read from beginning to end, with a
//!   few bytes in memory for each of up to 900,000 keys; with more keys, they are read again for the next ones.
//! - **Discarded dead letters.** A discarded dead letter explains why an order is not settled or a record is out of order. It
//!   never explains wrong money, wrong stock, a wrong history or a lost event ([`dead_letters`]).
//!
//! Checks within one service are in that service (its module `check`); comparisons of several services are here. The tests plant violations of every invariant, and each must be found.
//!
//! It never writes to a table or a topic, never changes anything at the provider, and never prints a secret that it found. Its
//! calls to the provider come from the budget that the payment service's replicas share, after theirs.

mod config;
mod dead_letters;
mod invariants;
mod journal;
mod orders;
mod progress;
mod provider;
mod recheck;
mod report;
mod secrets;
mod topics;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use bus::Brokers;
use chassis::boot::Databases;
use chassis::boot::db;
use chassis::check::Finding;
use chassis::{Clock, Unexpected};
use contracts::event::{Event as _, TOPICS};
use contracts::souk::inventory::v1::inventory_event;
use contracts::souk::order::v1::order_event;
use contracts::souk::payment::v1::payment_event;
use contracts::souk::user::v1::user_event;
use payment::check::Provider;
use roster::Role;
use sqlx::PgPool;
use time::OffsetDateTime;

use dead_letters::Discarded;
use journal::{Coverage, Journal};
use progress::Progress;
use recheck::single;
use secrets::Scan;

pub use config::{Config, Options};
pub use invariants::help;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{variable}: {why}")]
    Config { variable: String, why: String },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("the topics: {0}")]
    Topics(#[from] bus::Error),
    #[error("the provider: {0}")]
    Provider(String),
    #[error("the journal {path:?}, line {line}: {why}")]
    Journal { path: PathBuf, line: usize, why: String },
}

/// Bounds of what is in memory.
struct Sizes {
    /// Orders, and rows of other tables, that are read at once.
    rows_per_range: i64,
    /// Keys of a topic: a hash table of 2^20 entries, with 19 to 29 bytes each.
    keys_in_memory: i64,
}

const SIZES: Sizes = Sizes { rows_per_range: 10_000, keys_in_memory: 900_000 };

/// Everything that is read.
struct Sources {
    /// The databases of all services, which are scanned for secrets.
    databases: Vec<(Role, PgPool)>,
    inventory: PgPool,
    order: PgPool,
    payment: PgPool,
    notification: PgPool,
    analytics: PgPool,
    kafka: Brokers,
    provider: Option<Provider>,
    journal: Option<Journal>,
    at_rest: bool,
    /// How long notifications are attempted.
    give_up_after: Duration,
    sizes: Sizes,
    /// The pause before a violation is checked again.
    recheck_pause: Duration,
}

impl Sources {
    fn open(config: &Config, options: &Options, databases: &Databases) -> Result<Self, Error> {
        let invalid = |variable: &str, why| Error::Config { variable: variable.to_owned(), why };
        let pool = |role: Role| {
            let pool = db::pool_with_timeout(databases.of(role), 4, config.check_statement_timeout);
            pool.map_err(|error| invalid(&role.variable(error.setting), error.why))
        };
        let databases = roster::services().map(|role| Ok((role, pool(role)?))).collect::<Result<Vec<_>, Error>>()?;
        let [inventory, order, payment, notification, analytics] =
            [roster::INVENTORY, roster::ORDER, roster::PAYMENT, roster::NOTIFICATION, roster::ANALYTICS]
                .map(|role| database(&databases, role));
        let provider = config.check_provider_url.as_deref().map(|url| {
            let key = config.provider_key().map_err(|why| invalid("PAYMENT_PROVIDER_KEY_FILE", why))?;
            Provider::new(url, &key, config.provider_rate, payment.clone())
                .map_err(|why| invalid("SOUK_CHECK_PROVIDER_URL", why))
        });
        let provider = provider.transpose()?;
        let kafka = Brokers::new(&config.kafka, &config.tls.directory, "check");
        let kafka = kafka.map_err(|error| invalid(error.variable, error.why))?;
        let coverage = if options.journal_is_complete { Coverage::Complete } else { Coverage::Partial };
        let attempts = options.journal.as_deref().map(journal::read).transpose()?;
        Ok(Self {
            databases,
            inventory,
            order,
            payment,
            notification,
            analytics,
            kafka,
            provider,
            journal: attempts.map(|attempts| Journal { attempts, coverage }),
            at_rest: options.at_rest,
            give_up_after: config.give_up_after,
            sizes: SIZES,
            recheck_pause: recheck::PAUSE,
        })
    }

    /// The time of the check. With `at_rest` it is a day later: a condition that must hold a minute after the last change must hold
    /// now.
    fn as_of(&self) -> OffsetDateTime {
        Clock::System.now() + if self.at_rest { time::Duration::DAY } else { time::Duration::ZERO }
    }
}

/// The database of one service.
fn database(all: &[(Role, PgPool)], role: Role) -> PgPool {
    let found = all.iter().find(|(it, _)| *it == role);
    found.expect("every service of the roster has a database").1.clone()
}

/// Checks everything and prints the report. Returns whether all invariants hold.
pub async fn run(config: &Config, options: &Options, databases: &Databases) -> Result<bool, Error> {
    let sources = Sources::open(config, options, databases)?;
    let progress = Progress::begin();
    let mut findings = check(&sources).await?;
    // Not repeated: a secret that was stored does not disappear.
    let scan = scan(&sources).await?;
    drop(progress);
    findings.push(scan.finding.clone());
    report::print(&findings);
    report::print_scanned(&scan);
    Ok(findings.iter().all(|finding| finding.violations.is_empty()))
}

async fn check(sources: &Sources) -> Result<Vec<Finding>, Error> {
    let Sources {
        inventory,
        order,
        payment,
        analytics,
        sizes: Sizes { rows_per_range: rows, keys_in_memory: keys },
        ..
    } = sources;
    let services: Vec<_> = sources.databases.iter().map(|(_, db)| db).collect();
    let discarded = &Discarded::read(&services, payment).await?;
    progress::set("I1: stock".to_owned());
    let mut findings = sources.recheck(|| single(inventory::check::check_stock(inventory))).await?;
    findings.extend(orders::check_orders(sources, discarded).await?);
    findings.extend(sources.recheck(|| single(analytics::check::check_sums(analytics))).await?);
    if sources.at_rest && discarded.exemptions.is_empty() {
        let (ours, theirs) = (order::check::sales(order).await?, analytics::check::sales(analytics).await?);
        findings.push(orders::compare_sales(&ours, &theirs));
    }
    findings.extend(orders::check_payments(sources).await?);
    findings.extend(sources.recheck(|| single(dead_letters::check_parked(&services))).await?);
    findings.push(discarded.finding());
    let exemptions = &discarded.exemptions;
    for topic in TOPICS {
        findings.extend(match *topic {
            order_event::Event::TOPIC => {
                let recorded = |after| order::check::versions(order, after, *rows);
                sources.check_topic(topic, order, recorded, exemptions).await?
            }
            inventory_event::Event::TOPIC => {
                let recorded = |after| inventory::check::versions(inventory, after, *rows);
                sources.check_topic(topic, inventory, recorded, exemptions).await?
            }
            payment_event::Event::TOPIC => {
                let recorded = |after| payment::check::versions(payment, after, *rows);
                sources.check_topic(topic, payment, recorded, exemptions).await?
            }
            user_event::Event::TOPIC => {
                let user = &database(&sources.databases, roster::USER);
                let recorded = |after| user::check::versions(user, after, *rows);
                sources.check_topic(topic, user, recorded, exemptions).await?
            }
            // A topic that is not checked is a mistake of this program.
            other => return Err(Unexpected::Broken(format!("I5 of {other} has no check")).into()),
        });
    }
    progress::set("I6: stored responses".to_owned());
    let responses = || single(order::check::check_responses(order, Clock::System.now(), *keys));
    findings.extend(sources.recheck(responses).await?);
    if let Some(journal) = &sources.journal {
        progress::set("I6, I8: the journal".to_owned());
        findings.extend(sources.recheck(|| journal.check(order, *rows)).await?);
    }
    Ok(findings)
}

async fn scan(sources: &Sources) -> Result<Scan, Error> {
    let mut scan = Scan::begin(&database(&sources.databases, roster::USER)).await?;
    for (role, db) in &sources.databases {
        scan.database(role.name, db).await?;
    }
    for topic in TOPICS {
        scan = scan.topic(&sources.kafka, topic).await?;
    }
    Ok(scan)
}
