//! Configuration, from the environment only. `souk <role> --help` is the reference.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use sqlx::PgPool;

use crate::boot::db::{self, Database};
use crate::boot::settings::{Prefix, Prefixed};
use crate::rpc::client;
use crate::tls::Tls;

/// The settings of every role.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The tracing filter of the log, such as `info,sqlx=warn`.
    #[arg(default_value = "info,sqlx=warn,rdkafka=off,librdkafka=off")]
    pub log: String,
    /// The format of the log.
    #[arg(default_value = "text")]
    pub log_format: LogFormat,
    /// The trace collector (OTLP over gRPC), such as http://127.0.0.1:4317. Unset: no traces.
    #[arg(env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    #[command(flatten)]
    pub token: Prefixed<Tokens>,
    /// The user service, which has the public keys of access tokens and the list of revoked sessions.
    #[arg(default_value = "https://127.0.0.1:9002")]
    pub user_url: client::Url,
    /// The address of health and metrics: one port per process.
    #[arg(default_value = "127.0.0.1:9100")]
    pub admin_listen: SocketAddr,
    #[command(flatten)]
    pub tls: Prefixed<Tls>,
    #[command(flatten)]
    pub kafka: Prefixed<Kafka>,
    /// A name that this replica keeps over restarts. With it, a restarted consumer gets its partitions back at once.
    pub instance: Option<String>,
    /// How long a stopping role waits, NOT_SERVING, until load balancers send no more calls.
    #[arg(default_value = "0s", value_parser = parse_duration)]
    pub drain: Duration,
    /// How long stopping may take in total.
    #[arg(default_value = "20s", value_parser = parse_duration)]
    pub grace: Duration,
}

impl Prefix for Common {
    const PREFIX: &'static str = "souk";
}

/// Access tokens.
#[derive(Debug, Clone, Args)]
pub struct Tokens {
    /// The issuer of access tokens.
    #[arg(default_value = "https://souk.local")]
    pub issuer: String,
    /// The audience of access tokens.
    #[arg(default_value = "souk")]
    pub audience: String,
}

impl Prefix for Tokens {
    const PREFIX: &'static str = "souk_token";
}

/// The Kafka cluster.
#[derive(Debug, Clone, Args)]
pub struct Kafka {
    /// Kafka's bootstrap servers, comma-separated.
    #[arg(default_value = "127.0.0.1:19092")]
    pub brokers: String,
    /// How a role identifies itself to the brokers, and they to it.
    #[arg(default_value = "certificate")]
    pub security: KafkaSecurity,
    /// With `scram`: the folder with a password of each role in the first line of a file, such as `order.password`.
    pub password_directory: Option<PathBuf>,
    /// With `scram`: the user. Unset: the name of the role.
    pub username: Option<String>,
    /// With `scram`: the certificate authority of the brokers. Unset: those of the system.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KafkaSecurity {
    /// TLS, with the role's certificate in SOUK_TLS_DIRECTORY.
    Certificate,
    /// TLS, with SASL/SCRAM-SHA-512.
    Scram,
    /// Neither: everybody may do everything.
    Plain,
}

impl Prefix for Kafka {
    const PREFIX: &'static str = "souk_kafka";
}

/// The settings of every service. Their defaults depend on the role, see [`super::settings`].
#[derive(Debug, Clone, Args)]
pub struct Foundation {
    /// The address on which it serves gRPC.
    #[arg()]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub database: Database,
    /// The most connections to its database.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub database_connections: u32,
}

impl Foundation {
    /// The pool, which connects when first used. `role` has these settings.
    pub fn pool(&self, role: roster::Role) -> Result<PgPool, String> {
        let pool = db::pool(&self.database, self.database_connections);
        pool.map_err(|invalid| format!("{}: {}", role.variable(invalid.setting), invalid.why))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// A duration such as `250ms`, `5s`, `15m` or `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a duration such as 250ms, 5s, 15m or 1h");
    // The library also reads `M`, which is a month.
    let mut units = text.split(|letter: char| !letter.is_alphabetic()).filter(|unit| !unit.is_empty());
    if units.any(|unit| !["ms", "s", "m", "h", "d"].contains(&unit)) {
        return Err(invalid());
    }
    humantime::parse_duration(text).map_err(|why| format!("{}: {why}", invalid()))
}

/// The first line of a file, which is where secrets stand; or what is wrong with the file.
pub fn first_line(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub fn parse_http_url(text: &str) -> Result<String, String> {
    let url: Option<http::Uri> = text.parse().ok();
    let is_http = url.is_some_and(|it| matches!(it.scheme_str(), Some("http" | "https")) && it.host() != Some(""));
    if is_http { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a URL such as http://127.0.0.1:9100/keys")) }
}

/// A URL to which secrets are sent: https, unless it is on loopback.
pub fn parse_secure_url(text: &str) -> Result<String, String> {
    let url = parse_http_url(text)?;
    let uri: http::Uri = url.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if uri.scheme_str() == Some("https") || is_here {
        Ok(url)
    } else {
        Err(format!("`{text}` must be https: it is not on loopback"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        for odd in ["", "5", "s", "-5s", "15M", "2months", "500us", "99999999999999999999h"] {
            assert!(parse_duration(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for good in ["http://127.0.0.1:9100/keys", "https://user.souk/.well-known/jwks.json", "http://[::1]"] {
            assert_eq!(parse_http_url(good).as_deref(), Ok(good));
        }
        for odd in ["", "nonsense", "127.0.0.1:9100", "user:9100/keys", "/keys", "ftp://a/b", "http://", "http://a b"] {
            assert!(parse_http_url(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn secrets_leave_this_machine_encrypted() {
        for good in ["https://api.stripe.com", "http://127.0.0.1:9201", "http://[::1]:9201/", "http://localhost:9201"] {
            assert_eq!(parse_secure_url(good).as_deref(), Ok(good));
        }
        let odd =
            ["http://api.stripe.com", "HTTP://10.0.0.1", "http://127.0.0.1.example.com", "http://127.1@evil.com", ""];
        for odd in odd {
            assert!(parse_secure_url(odd).is_err(), "{odd}");
        }
    }
}
