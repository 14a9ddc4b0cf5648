//! `stack`: the program behind `make up`, `make test`, `make test-servers`, `make coverage` and `make prepare`, and of two jobs of
//! `docker compose up`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stack::{controlled, coverage, prepare, purchase, secrets, test, up};

/// Installs, starts and supervises all of Souk on this machine.
#[derive(Debug, Parser)]
#[command(name = "stack")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything, seeds a catalogue, buys something to prove that it works, and runs until Ctrl-C.
    Up(up::Options),
    /// Starts everything on the ports of the tests, and reads commands from standard input.
    Controlled(controlled::Options),
    /// Checks and tests everything.
    Test,
    /// Runs all tests instrumented, and prints the share of lines that they ran.
    Coverage,
    /// Starts the servers that tests of single crates need, prints their environment variables, and runs until Ctrl-C.
    TestServers,
    /// Makes all certificates, keys and passwords for containers, unless they are there.
    Secrets(secrets::Options),
    /// Creates a catalogue at an edge, and buys something to prove that it works.
    Purchase(purchase::Options),
    /// Regenerates `.sqlx`, the types of all queries.
    Prepare,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(&options).await,
        Command::Controlled(options) => controlled::run(&options).await,
        Command::Test => test::run().await,
        Command::Coverage => coverage::run().await,
        Command::TestServers => test::serve().await,
        Command::Secrets(options) => secrets::run(&options),
        Command::Purchase(options) => purchase::run(&options).await,
        Command::Prepare => prepare::run().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}
