//! Money: what was authorized, captured and given back, and the ledger of it.
//!
//! What an order wants of its payment is a goal; what the provider says is a state; a step drives the one to the other,
//! one call at a time, outside any transaction. Before a call it is written down that it begins, afterwards how it ended. If
//! that is not known, the provider is asked. Calls carry a key that is the payment's, so that a repeated one moves no money
//! twice. Nothing else ever talks to the provider, and no card number is ever seen here.

pub mod check;
mod drive;
mod error;
mod goal;
mod on_event;
mod outcome;
mod payment;
mod read;
mod rpc;
mod stripe;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::config::{Secret, parse_duration, parse_loopback};
use chassis::consume::Consumer;
use chassis::db::{self, Schema};
use chassis::outbox::{Outbox, Wake};
use chassis::step::Step;
use chassis::{Clock, Context, Role};
use clap::Args;
use contracts::souk::payment::v1::payment_service_server::PaymentServiceServer;
use sqlx::PgPool;

use rpc::Rpc;
use stripe::Stripe;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/payment");
pub static SCHEMA: Schema =
    Schema { service: "payment", migrator: &MIGRATOR, append_only: &["ledger_transfer", "payment_history"] };

/// The payment service.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Config {
    /// Where it listens for gRPC.
    #[arg(
        id = "PAYMENT_LISTEN",
        long = "payment-listen",
        env = "PAYMENT_LISTEN",
        default_value = "127.0.0.1:9006",
        value_parser = parse_loopback
    )]
    listen: SocketAddr,
    /// Its database, with its role.
    #[arg(
        id = "PAYMENT_DATABASE_URL",
        long = "payment-database-url",
        env = "PAYMENT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_payment@127.0.0.1:15432/souk_payment"
    )]
    database_url: Secret,
    /// How many connections it may have to its database.
    #[arg(
        id = "PAYMENT_DATABASE_CONNECTIONS",
        long = "payment-database-connections",
        env = "PAYMENT_DATABASE_CONNECTIONS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    database_connections: u32,
    /// The payment provider: Stripe, or what speaks its API.
    #[arg(
        id = "PAYMENT_PROVIDER_URL",
        long = "payment-provider-url",
        env = "PAYMENT_PROVIDER_URL",
        default_value = "http://127.0.0.1:9201"
    )]
    provider_url: String,
    /// A file that holds the provider's secret key, in its first line.
    #[arg(id = "PAYMENT_PROVIDER_KEY_FILE", long = "payment-provider-key-file", env = "PAYMENT_PROVIDER_KEY_FILE")]
    provider_key_file: Option<PathBuf>,
    /// How long a call to the provider may take.
    #[arg(
        id = "PAYMENT_PROVIDER_TIMEOUT",
        long = "payment-provider-timeout",
        env = "PAYMENT_PROVIDER_TIMEOUT",
        default_value = "10s",
        value_parser = parse_duration
    )]
    provider_timeout: Duration,
    /// How many payments are worked on at once.
    #[arg(
        id = "PAYMENT_WORKERS",
        long = "payment-workers",
        env = "PAYMENT_WORKERS",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    workers: u16,
}

struct Service {
    db: PgPool,
    clock: Clock,
    provider: Stripe,
    /// How long a worker has for one payment: longer than its calls may take together.
    lease: Duration,
    /// Wakes the relay of the outbox.
    published: Wake,
    /// Wakes a worker.
    work: Wake,
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let db = db::pool(&config.database_url, config.database_connections)
        .map_err(|error| format!("PAYMENT_DATABASE_URL: {error}"))?;
    let file = config.provider_key_file.as_ref().ok_or("PAYMENT_PROVIDER_KEY_FILE: is required")?;
    let key = std::fs::read_to_string(file);
    let key = key.map_err(|error| format!("PAYMENT_PROVIDER_KEY_FILE: {}: {error}", file.display()))?;
    let key = key.lines().next().unwrap_or_default();
    let provider = Stripe::new(&config.provider_url, key, config.provider_timeout)
        .map_err(|error| format!("PAYMENT_PROVIDER_URL: {error}"))?;
    let service = Service {
        db,
        clock: context.clock.clone(),
        provider,
        lease: config.provider_timeout * 2 + Duration::from_secs(5),
        published: Wake::default(),
        work: Wake::default(),
    };
    Ok(role(Arc::new(service), config.listen, config.workers.into(), context))
}

fn role(service: Arc<Service>, listen: SocketAddr, workers: usize, context: &Context) -> Role {
    let (driven, watched) = (service.clone(), service.clone());
    let drive = Step::new("payment.drive", Duration::from_secs(1), move || drive::drive(driven.clone()));
    let watch = Step::new("payment.behind", Duration::from_secs(10), move || drive::count_behind(watched.clone()));
    Role::new("payment", "souk.payment", listen, context)
        .serve(PaymentServiceServer::new(Rpc(service.clone())))
        .publish(Outbox { db: service.db.clone(), wake: service.published.clone() })
        .step(drive.woken_by(service.work.clone()).workers(workers))
        .step(watch)
        .consume(consumer(service))
}

fn consumer(service: Arc<Service>) -> Consumer {
    let db = service.db.clone();
    Consumer { name: "payment", topics: &["souk.order.v1"], db, handler: Arc::new(on_event::Orders(service)) }
}

#[cfg(test)]
mod tests;
