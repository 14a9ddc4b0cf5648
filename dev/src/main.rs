//! `dev`: what `make` calls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dev::{bench, bugs, faults, prepare, provider, stack, test, up};

#[derive(Debug, Parser)]
#[command(name = "dev", about = "Runs all of Souk, and its tests, on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything, seeds a catalogue, buys something as a proof, and stays until Ctrl-C.
    Up(up::Options),
    /// Starts everything on the ports of the tests, controlled by lines on standard input.
    Stack(stack::Options),
    /// Checks and tests everything.
    Test,
    /// Starts what tests of single crates need, says how they find it, and stays until Ctrl-C.
    TestServers,
    /// Writes `.sqlx` anew: what the queries mean.
    Prepare,
    /// Breaks everything that can break while customers buy, and checks that no promise was.
    Faults(faults::Options),
    /// Plants well-known bugs, one after another, and checks that tests notice each.
    Bugs(bugs::Options),
    /// Measures what orders cost here, or something of its own.
    Bench {
        #[command(subcommand)]
        of: Option<Bench>,
    },
    /// What `bench` compares the product service with.
    #[command(hide = true)]
    BareProduct { listen: SocketAddr, database: String },
    /// Plays the payment provider.
    Provider {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:9201")]
        listen: SocketAddr,
        /// Where its ledger is.
        #[arg(long)]
        data: PathBuf,
        /// Where it sends webhooks. None: nowhere.
        #[arg(long, requires = "webhook_secret_file")]
        webhook_url: Option<String>,
        /// The file whose first line signs them.
        #[arg(long, requires = "webhook_url")]
        webhook_secret_file: Option<PathBuf>,
        /// Which webhooks it sends, comma-separated. None named: all.
        #[arg(long, value_delimiter = ',')]
        webhook_events: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Everybody wants one SKU, against the same crowd on a thousand.
    Flash,
    /// Reads through the edge, against the same reads at the role.
    Reads,
    /// `souk check` over many orders: its time, and its memory at the peak.
    Check(bench::check::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(&options).await,
        Command::Stack(options) => stack::run(&options).await,
        Command::Test => test::run().await,
        Command::TestServers => test::serve().await,
        Command::Prepare => prepare::run().await,
        Command::Faults(options) => faults::run(&options).await,
        Command::Bugs(options) => bugs::run(&options).await,
        Command::Bench { of: None } => bench::run().await,
        Command::Bench { of: Some(Bench::Flash) } => bench::flash::run().await,
        Command::Bench { of: Some(Bench::Check(options)) } => bench::check::run(&options).await,
        Command::Bench { of: Some(Bench::Reads) } => bench::reads::run().await,
        Command::BareProduct { listen, database } => bench::layers::serve_bare(listen, &database).await,
        Command::Provider { listen, data, webhook_url, webhook_secret_file, webhook_events } => {
            tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
            let listener = webhook_url.zip(webhook_secret_file);
            let events = webhook_events;
            let listener = listener.map(|(url, secret_file)| provider::Listener { url, secret_file, events });
            provider::serve(listen, data, listener).await.map_err(Into::into)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}
