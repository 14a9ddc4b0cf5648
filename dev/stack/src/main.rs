//! `stack`: the program behind `make up`, `make test`, `make test-servers` and `make prepare`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stack::{controlled, prepare, test, up};

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
    /// Starts the servers that tests of single crates need, prints their environment variables, and runs until Ctrl-C.
    TestServers,
    /// Regenerates `.sqlx`, the types of all queries.
    Prepare,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(&options).await,
        Command::Controlled(options) => controlled::run(&options).await,
        Command::Test => test::run().await,
        Command::TestServers => test::serve().await,
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
