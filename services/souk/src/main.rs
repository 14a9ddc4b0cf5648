//! `souk`: every role of the shop, and the commands around them, in one binary. A role is data; this selects which to
//! run and hands them to chassis.

mod cli;
mod migrate;
mod ops;
#[cfg(test)]
mod query_cache;
mod roles;
mod scram;

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use user::CreateOperatorError;

use cli::{Cli, Command, CreateOperator, OrderCommand, UserCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As in sysexits.h: the configuration is wrong, and trying again will not help.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli.command));
            // Whoever had time to finish has finished; a thread that hangs must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => say(&error, 1),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Migrate(config) => match migrate::run(&config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ migrate::Error::Config { .. }) => say(&error, USAGE),
            Err(error) => say(&error, 1),
        },
        Command::Check(check) => match check::run(&check.check, &check.databases).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error @ check::Error::Config { .. }) => say(&error, USAGE),
            Err(error) => say(&error, 1),
        },
        Command::Envoy(config) => match edge::render(&config, contracts::DESCRIPTORS) {
            Ok(yaml) => print(yaml.as_bytes()),
            Err(error) => say(&error, USAGE),
        },
        Command::Descriptors => print(contracts::DESCRIPTORS),
        Command::All(config) => roles::serve("all", &config.common, |context| roles::all(&config, context)).await,
        Command::Gateway(one) => roles::one(&one, gateway::start).await,
        Command::User(user) => match user.command {
            Some(UserCommand::CreateOperator(operator)) => create_operator(&operator).await,
            None => {
                let common = &user.one.common;
                let start = |config: &user::Config, context: &_| user::start(config, common, context);
                roles::one(&user.one, start).await
            }
        },
        Command::Product(one) => roles::one(&one, product::start).await,
        Command::Inventory(one) => roles::one(&one, inventory::start).await,
        Command::Order(order) => match order.command {
            Some(OrderCommand::Rebuild(config)) => rebuild_orders(&config.0).await,
            None => roles::one(&order.one, order::start).await,
        },
        Command::Payment(one) => roles::one(&one, payment::start).await,
    }
}

async fn create_operator(operator: &CreateOperator) -> ExitCode {
    match user::create_operator(&operator.config.0, &operator.email, &operator.password_file).await {
        Ok(done) => print(format!("{done}\n").as_bytes()),
        Err(error @ CreateOperatorError::Given(_)) => say(&error, USAGE),
        Err(error) => say(&error, 1),
    }
}

async fn rebuild_orders(config: &order::Config) -> ExitCode {
    let mut differ = 0;
    let rebuilt = order::rebuild(config, |difference| {
        differ += 1;
        println!("{}: {}", difference.order_id, difference.why);
    });
    match rebuilt.await {
        Ok(count) => println!("{count} orders were built from their events, {differ} differ"),
        Err(error) => return say(&error, 1),
    }
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(bytes: &[u8]) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&error, 1),
    }
}

fn say(error: &dyn Display, code: u8) -> ExitCode {
    eprintln!("souk: {error}");
    ExitCode::from(code)
}
