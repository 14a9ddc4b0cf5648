//! The settings of all rate limits. The edge and the gateway need the same.

use std::time::Duration;

use chassis::boot::Prefix;
use chassis::boot::config::parse_duration;
use clap::Args;

/// Limits of clients. A client is an address, for IPv6 its /64 network, which a provider gives to one customer; a signed-in user
/// has limits of its own beside those of its address.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Limits {
    /// Reads per second and client address.
    #[arg(default_value_t = 1_000, value_parser = positive())]
    pub read_rate: u32,
    /// Burst of reads per client address.
    #[arg(default_value_t = 2_000, value_parser = positive())]
    pub read_burst: u32,
    /// Writes, and attempts to register or to sign in, per second and client address.
    #[arg(default_value_t = 500, value_parser = positive())]
    pub write_rate: u32,
    /// Burst of these per client address.
    #[arg(default_value_t = 1_000, value_parser = positive())]
    pub write_burst: u32,
    /// Registrations and logins per client address within any period of the length of SOUK_LIMIT_ACCOUNT_WINDOW, counted over
    /// all Envoys.
    #[arg(default_value_t = 100, value_parser = positive())]
    pub account_count: u32,
    /// The period of SOUK_LIMIT_ACCOUNT_COUNT.
    #[arg(default_value = "15m", value_parser = parse_window)]
    pub account_window: Duration,
    /// New connections per second and client address, counted over all Envoys. Not behind balancers (EDGE_TRUSTED_HOPS).
    #[arg(default_value_t = 10, value_parser = positive())]
    pub connection_rate: u32,
    /// Burst of new connections per client address.
    #[arg(default_value_t = 500, value_parser = positive())]
    pub connection_burst: u32,
    /// A /48 network of IPv6 may do as much as this many clients.
    #[arg(default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub network_factor: u32,
    /// Reads per second of one customer, counted by each Envoy for itself.
    #[arg(default_value_t = 200, value_parser = positive())]
    pub customer_read_rate: u32,
    /// Burst of reads of one customer.
    #[arg(default_value_t = 400, value_parser = positive())]
    pub customer_read_burst: u32,
    /// Writes per second of one customer, counted over all Envoys.
    #[arg(default_value_t = 20, value_parser = positive())]
    pub customer_write_rate: u32,
    /// Burst of writes of one customer.
    #[arg(default_value_t = 60, value_parser = positive())]
    pub customer_write_burst: u32,
    /// Reads per second of one operator, counted by each Envoy for itself.
    #[arg(default_value_t = 500, value_parser = positive())]
    pub operator_read_rate: u32,
    /// Burst of reads of one operator.
    #[arg(default_value_t = 1_000, value_parser = positive())]
    pub operator_read_burst: u32,
    /// Writes per second of one operator, counted over all Envoys.
    #[arg(default_value_t = 200, value_parser = positive())]
    pub operator_write_rate: u32,
    /// Burst of writes of one operator.
    #[arg(default_value_t = 400, value_parser = positive())]
    pub operator_write_burst: u32,
}

impl Prefix for Limits {
    const PREFIX: &'static str = "souk_limit";
}

/// No rate or burst is larger: Envoy's numbers end at four times that, and products with the factor of a network must fit.
const MOST: i64 = 1_000_000;

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=MOST)
}

/// Envoy fills token buckets every 50 ms at the most.
fn parse_window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text)?;
    if window < Duration::from_millis(50) { Err(format!("`{text}` is below 50ms")) } else { Ok(window) }
}
