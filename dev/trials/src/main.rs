//! `trials`: what `make faults`, `make bugs` and the benches call.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trials::{bench, bugs, faults};

/// Breaks all of Souk on this machine, or measures it.
#[derive(Debug, Parser)]
#[command(name = "trials")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks everything that can break while customers buy, and checks that every promise was kept.
    Faults(faults::Options),
    /// Plants well-known bugs, one after another, and checks that tests notice each.
    Bugs(bugs::Options),
    /// Measures what orders cost here, or what the subcommand names.
    Bench {
        #[command(subcommand)]
        of: Option<Bench>,
    },
    /// What `bench` compares the product service with.
    #[command(hide = true)]
    BareProduct { listen: SocketAddr, database: String },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A crowd that wants one SKU, against the same crowd on a thousand.
    Flash,
    /// Reads through the edge, against the same reads at the role.
    Reads,
    /// `souk check` over many orders: its time, and its memory at the peak.
    Check(bench::check::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Faults(options) => faults::run(&options).await,
        Command::Bugs(options) => bugs::run(&options).await,
        Command::Bench { of: None } => bench::run().await,
        Command::Bench { of: Some(Bench::Flash) } => bench::flash::run().await,
        Command::Bench { of: Some(Bench::Check(options)) } => bench::check::run(&options).await,
        Command::Bench { of: Some(Bench::Reads) } => bench::reads::run().await,
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
