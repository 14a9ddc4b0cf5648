//! `souk`: all roles and administrative commands in one binary. It builds the selected roles and passes them to
//! `chassis::boot::run`.

mod cli;
mod commands;
mod health;
mod migrate;
mod ops;
#[cfg(test)]
mod query_cache;
mod roles;
mod scram;
mod serve;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a wrong configuration, as in sysexits.h: a restart will not help.
pub(crate) const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // It fails if the terminal is gone; then there is nowhere to report it.
            let _ = error.print();
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli.command));
            // Roles have drained by now; a thread that hangs must not keep the process alive.
            runtime.shutdown_background();
            code
        }
        Err(error) => print_error(&error, 1),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Role(command) => roles::run(*command).await,
        Command::Health(it) => health::run(&it).await,
        Command::Migrate(config) => match migrate::run(&config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ (migrate::Error::Config { .. } | migrate::Error::Kafka(_))) => print_error(&error, USAGE),
            Err(error) => print_error(&error, 1),
        },
        Command::Check(check) => match check::run(&check.config, &check.options, &check.databases).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error @ check::Error::Config { .. }) => print_error(&error, USAGE),
            Err(error) => print_error(&error, 1),
        },
        Command::Envoy(envoy) => commands::configure_envoy(&envoy),
        Command::EnvoySecret(it) => match edge::render_secret(it.secret, &it.tls) {
            Ok(yaml) => print(yaml.as_bytes()),
            Err(error) => print_error(&error, USAGE),
        },
        Command::Descriptors => print(contracts::DESCRIPTORS),
    }
}

pub(crate) fn print(bytes: &[u8]) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print_error(&error, 1),
    }
}

pub(crate) fn print_error(error: &dyn Display, code: u8) -> ExitCode {
    eprintln!("souk: {error}");
    ExitCode::from(code)
}
