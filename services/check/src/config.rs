//! The configuration of `souk check`.

use std::path::PathBuf;
use std::time::Duration;

use chassis::boot::config::{first_line, parse_duration, parse_secure_url};
use clap::Args;

/// What to check, beside the databases.
#[derive(Debug, Args)]
pub struct Config {
    /// Kafka's bootstrap servers, comma-separated.
    #[arg(
        id = "SOUK_KAFKA_BROKERS",
        long = "kafka-brokers",
        env = "SOUK_KAFKA_BROKERS",
        default_value = "127.0.0.1:19092"
    )]
    pub(crate) kafka_brokers: String,
    /// URL of the payment provider, to compare its intents and refunds with the ledger. Unset: I2 is not checked.
    #[arg(
        id = "SOUK_CHECK_PROVIDER_URL",
        long = "provider-url",
        env = "SOUK_CHECK_PROVIDER_URL",
        value_parser = parse_secure_url
    )]
    pub(crate) provider_url: Option<String>,
    /// A file with the provider's secret key in its first line: the payment service's, or one that may only read payment
    /// intents, charges and refunds.
    #[arg(id = "PAYMENT_PROVIDER_KEY_FILE", long = "provider-key-file", env = "PAYMENT_PROVIDER_KEY_FILE")]
    pub(crate) provider_key_file: Option<PathBuf>,
    /// Calls per second to the provider, by this process and all replicas together: the same as the payment service's.
    #[arg(
        id = "PAYMENT_PROVIDER_RATE",
        long = "provider-rate",
        env = "PAYMENT_PROVIDER_RATE",
        default_value_t = 25,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) provider_rate: u32,
    /// Timeout of a database statement.
    #[arg(
        id = "SOUK_CHECK_STATEMENT_TIMEOUT",
        long = "statement-timeout",
        env = "SOUK_CHECK_STATEMENT_TIMEOUT",
        default_value = "10m",
        value_parser = parse_duration
    )]
    pub(crate) statement_timeout: Duration,
    /// The journal of load clients: one line of JSON per attempt, with `attempt`, `key`, `kind` (`create` for CreateOrder),
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
