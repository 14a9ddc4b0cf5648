//! The program `provider`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use provider::webhook::SUBSCRIBED;
use provider::{Certificate, WebhookEndpoint, serve};

/// Simulates the payment provider: Stripe's wire API over HTTP or HTTPS.
#[derive(Debug, Parser)]
#[command(name = "provider")]
struct Options {
    /// The address that it listens on.
    #[arg(long, default_value = "127.0.0.1:9201")]
    listen: SocketAddr,
    /// The address for text messages: Twilio's Messages API. Without it, there is none.
    #[arg(long)]
    sms_listen: Option<SocketAddr>,
    /// The file with its certificate (PEM): it then serves over TLS.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The file with the key of its certificate.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// The folder of its ledger; created if missing.
    #[arg(long)]
    data: PathBuf,
    /// The http URL that webhooks are sent to; without it, none are sent.
    #[arg(long, requires = "webhook_secret_file")]
    webhook_url: Option<String>,
    /// The file whose first line is the secret that signs webhooks.
    #[arg(long, requires = "webhook_url")]
    webhook_secret_file: Option<PathBuf>,
    /// The event types that are sent, comma-separated.
    #[arg(long, value_delimiter = ',', default_values = SUBSCRIBED)]
    webhook_events: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options {
        listen,
        sms_listen,
        certificate,
        key,
        data,
        webhook_url,
        webhook_secret_file,
        webhook_events: events,
    } = Options::parse();
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let webhooks =
        webhook_url.zip(webhook_secret_file).map(|(url, secret_file)| WebhookEndpoint { url, secret_file, events });
    let tls = certificate.zip(key).map(|(certificate, key)| Certificate { certificate, key });
    match serve(listen, sms_listen, tls, data, webhooks).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provider: {error}");
            ExitCode::FAILURE
        }
    }
}
