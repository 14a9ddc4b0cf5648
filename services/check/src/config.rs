//! The configuration of `souk check`.

use std::path::PathBuf;
use std::time::Duration;

use chassis::boot::config::{Kafka, first_line, parse_duration, parse_secure_url};
use chassis::boot::{Prefix, Prefixed};
use chassis::tls::Tls;
use clap::Args;

/// What it reads, beside the databases.
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    pub(crate) tls: Prefixed<Tls>,
    #[command(flatten)]
    pub(crate) kafka: Prefixed<Kafka>,
    /// URL of the payment provider, to compare its intents and refunds with the ledger. Unset: I2 is not checked.
    #[arg(value_parser = parse_secure_url)]
    pub(crate) check_provider_url: Option<String>,
    /// A file with the provider's secret key in its first line: the payment service's, or one that may only read payment
    /// intents, charges and refunds.
    #[arg(env = "PAYMENT_PROVIDER_KEY_FILE")]
    pub(crate) provider_key_file: Option<PathBuf>,
    /// Calls per second to the provider, by this process and all replicas together: the same as the payment service's.
    #[arg(
        env = "PAYMENT_PROVIDER_RATE",
        default_value_t = 25,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) provider_rate: u32,
    /// How long notifications are attempted: the same as the notification service's.
    #[arg(env = "NOTIFICATION_GIVE_UP_AFTER", default_value = "1d", value_parser = parse_duration)]
    pub(crate) give_up_after: Duration,
    /// Timeout of a database statement.
    #[arg(default_value = "10m", value_parser = parse_duration)]
    pub(crate) check_statement_timeout: Duration,
}

impl Prefix for Config {
    const PREFIX: &'static str = "souk";
}

/// What must hold.
#[derive(Debug, Args)]
pub struct Options {
    /// The journal of load clients: one line of JSON per attempt, with `attempt`, `key`, `operation` (`create` for CreateOrder),
    /// `outcome` (`ok`, `refused`, `unknown`), `order_id` if there was one, and `at`.
    #[arg(long)]
    pub(crate) journal: Option<PathBuf>,
    /// The journal is complete: an order without an attempt in it is a violation.
    #[arg(long, requires = "journal")]
    pub(crate) journal_is_complete: bool,
    /// No order is in progress: every order must be settled, however young it is.
    #[arg(long)]
    pub(crate) at_rest: bool,
}

impl Config {
    pub(crate) fn provider_key(&self) -> Result<String, String> {
        let file = self.provider_key_file.as_ref().ok_or("it is required with SOUK_CHECK_PROVIDER_URL")?;
        first_line(file)
    }
}
