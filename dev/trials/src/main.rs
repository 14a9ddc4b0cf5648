//! `trials`: the program behind `make faults`, `make compose-test`, `make abuse`, `make bugs` and the benchmarks.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trials::{abuse, bench, bugs, compose, faults};

/// Injects faults into Souk on this machine, plants bugs, or measures it.
#[derive(Debug, Parser)]
#[command(name = "trials")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Injects faults under load, and checks the invariants.
    Faults(faults::Options),
    /// Runs docker-compose.yml, and kills containers under load.
    Compose(compose::Options),
    /// Attacks the edge from one address, and measures another client meanwhile.
    Abuse(abuse::Options),
    /// Plants bugs, one after another, and checks that a test fails for each.
    Bugs(bugs::Options),
    /// Measures the throughput and cost of orders, or what the subcommand says.
    Bench {
        #[command(flatten)]
        options: bench::Options,
        #[command(subcommand)]
        bench: Option<Bench>,
    },
    /// Serves a minimal product service, with which `bench` compares the real one.
    #[command(hide = true)]
    BareProduct { listen: SocketAddr, database: String },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Orders of one SKU, compared with orders of a thousand.
    Flash,
    /// Reads through the edge, compared with reads at the role.
    Reads,
    /// SearchProducts over 100,000 products.
    Search,
    /// The edge's filters, TLS, exact limits, and credentials at Kafka and Postgres, compared with less of each.
    Security(bench::security::Options),
    /// `souk check` over many orders: time and peak memory.
    Check(bench::check::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Faults(options) => faults::run(&options).await,
        Command::Compose(options) => compose::run(&options).await,
        Command::Abuse(options) => abuse::run(&options).await,
        Command::Bugs(options) => bugs::run(&options).await,
        Command::Bench { bench: None, options } => bench::run(&options).await,
        Command::Bench { bench: Some(Bench::Flash), .. } => bench::flash::run().await,
        Command::Bench { bench: Some(Bench::Check(options)), .. } => bench::check::run(&options).await,
        Command::Bench { bench: Some(Bench::Reads), .. } => bench::reads::run().await,
        Command::Bench { bench: Some(Bench::Search), .. } => bench::search::run().await,
        Command::Bench { bench: Some(Bench::Security(options)), .. } => bench::security::run(&options).await,
        Command::BareProduct { listen, database } => bench::layers::serve_bare(listen, &database).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trials: {error:#}");
            ExitCode::FAILURE
        }
    }
}
