//! Money: what was authorized, captured and refunded, and the ledger of it.
//!
//! The events of an order set the goal of its payment, the provider's responses its state. A job drives the state to the goal,
//! one call at a time, outside any transaction: `drive.rs` reads top to bottom. The begin of a call is recorded before it, and
//! its outcome afterwards. An unknown outcome is read from the provider. Calls carry an idempotency key of the payment, so a
//! repeated one moves no money twice. No other service calls the provider, and no card number is ever seen here. A webhook only
//! makes a comparison with the provider happen sooner; each payment is compared once a day, until 30 days after its last change.

mod budget;
mod call;
mod changes;
pub mod check;
mod claim;
mod conclude;
mod decide;
mod drive;
mod error;
mod goal;
mod ids;
mod on_event;
mod order_return;
mod payment;
mod read;
mod reconcile;
mod record;
mod refund;
mod refund_payment;
mod rpc;
mod search;
mod service;
mod stale;
mod state;
mod stripe;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::config::{first_line, parse_duration, parse_secure_url};
use chassis::boot::{Foundation, Schema, Settings};
use chassis::rpc::client;
use chassis::{Context, Role};
use clap::Args;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;

use budget::{Budget, MAX_WAIT, Rates};
use service::{Service, role};
use stripe::Stripe;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/payment");
pub static SCHEMA: Schema = Schema {
    service: "payment",
    migrator: &MIGRATOR,
    append_only: &["ledger_transfer", "payment_history", "order_return"],
    consumes: on_event::TOPICS,
};

/// The payment service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// The payment provider: Stripe, or a server with its API. `http` only on this machine.
    #[arg(default_value = "http://127.0.0.1:9201", value_parser = parse_secure_url)]
    provider_url: String,
    /// A file that holds the provider's secret key, in its first line.
    provider_key_file: Option<PathBuf>,
    /// A file that holds the secret that signs the provider's webhooks, in its first line. None: webhooks are refused.
    /// The endpoint subscribes to charge.dispute.closed, charge.dispute.created, payment_intent.amount_capturable_updated,
    /// payment_intent.canceled, payment_intent.succeeded, refund.created, refund.failed and refund.updated. Others are accepted,
    /// and add nothing.
    webhook_secret_file: Option<PathBuf>,
    /// The order service. Payments that wait for an event of their order read the order's state from it.
    #[arg(default_value = "https://127.0.0.1:9005")]
    order_url: client::Url,
    /// How long a call to the provider may take.
    #[arg(default_value = "10s", value_parser = parse_duration)]
    provider_timeout: Duration,
    /// How many calls to the provider all replicas together may make in a second. Stripe allows an account 100 calls per
    /// second (25 in a sandbox), and 25 per endpoint (docs.stripe.com/rate-limits): the default is within all these limits,
    /// and enough for six orders per second.
    #[arg(default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    provider_rate: u32,
    /// How many payments without a pending call all replicas together compare with the provider in a second, while no payment
    /// needs the calls. Each is compared once a day for thirty days: 1 is enough for 86,400 payments. At most
    /// PAYMENT_PROVIDER_RATE.
    #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    reconcile_rate: u32,
    /// How many payments a replica processes at once.
    #[arg(default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::PAYMENT;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let rates = Rates::new(config.provider_rate, config.reconcile_rate)?;
    let db = config.foundation.pool(roster::PAYMENT)?;
    let file = config.provider_key_file.as_ref().ok_or("PAYMENT_PROVIDER_KEY_FILE: is required")?;
    let key = first_line(file).map_err(|why| format!("PAYMENT_PROVIDER_KEY_FILE: {why}"))?;
    let budget = Budget::new(db.clone(), rates);
    let provider = Stripe::new(&config.provider_url, &key, config.provider_timeout, budget)
        .map_err(|error| format!("PAYMENT_PROVIDER_URL: {error}"))?;
    let service = Service {
        db,
        clock: context.clock.of_database(),
        provider,
        webhook_secret: config.webhook_secret_file.as_deref().and_then(webhook::read_secret),
        orders: OrderServiceClient::new(client::connect(
            &context.certificates,
            roster::PAYMENT,
            roster::ORDER,
            &config.order_url,
        )?),
        lease: (config.provider_timeout + MAX_WAIT) * 3 + Duration::from_secs(5),
        published: Wake::default(),
        work: Wake::default(),
        comparisons: Wake::default(),
    };
    Ok(role(&Arc::new(service), config.workers.into(), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
