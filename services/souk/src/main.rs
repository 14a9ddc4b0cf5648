//! `souk`: all roles and administrative commands in one binary. It builds the selected roles and passes them to
//! `chassis::boot::run`.

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

/// The exit code for a wrong configuration, as in sysexits.h: a restart will not help.
const USAGE: u8 = 64;

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
        Err(error) => fail(&error, 1),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Migrate(config) => match migrate::run(&config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ migrate::Error::Config { .. }) => fail(&error, USAGE),
            Err(error) => fail(&error, 1),
        },
        Command::Check(check) => match check::run(&check.check, &check.databases).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error @ check::Error::Config { .. }) => fail(&error, USAGE),
            Err(error) => fail(&error, 1),
        },
        Command::Envoy(config) => match edge::render(&config, contracts::DESCRIPTORS) {
            Ok(yaml) => print(yaml.as_bytes()),
            Err(error) => fail(&error, USAGE),
        },
        Command::Descriptors => print(contracts::DESCRIPTORS),
        Command::All(config) => roles::serve("all", &config.common, |context| roles::all(&config, context)).await,
        Command::Gateway(single) => roles::run_one(&single, gateway::start).await,
        Command::User(user) => match user.command {
            Some(UserCommand::CreateOperator(operator)) => create_operator(&operator).await,
            None => {
                let common = &user.single.common;
                let start = |config: &user::Config, context: &_| user::start(config, common, context);
                roles::run_one(&user.single, start).await
            }
        },
        Command::Product(single) => roles::run_one(&single, product::start).await,
        Command::Inventory(single) => roles::run_one(&single, inventory::start).await,
        Command::Order(order) => match order.command {
            Some(OrderCommand::Rebuild(config)) => rebuild_orders(&config.0).await,
            None => roles::run_one(&order.single, order::start).await,
        },
        Command::Payment(single) => roles::run_one(&single, payment::start).await,
    }
}

async fn create_operator(operator: &CreateOperator) -> ExitCode {
    match user::create_operator(&operator.config.0, &operator.email, &operator.password_file).await {
        Ok(done) => print(format!("{done}\n").as_bytes()),
        Err(error @ CreateOperatorError::Given(_)) => fail(&error, USAGE),
        Err(error) => fail(&error, 1),
    }
}

async fn rebuild_orders(config: &order::Config) -> ExitCode {
    let mut differ = 0;
    let rebuilt = order::rebuild(config, |difference| {
        differ += 1;
        println!("{}: {}", difference.order_id, difference.why);
    });
    match rebuilt.await {
        Ok(count) => println!("{count} orders were rebuilt from their events, {differ} differ"),
        Err(error) => return fail(&error, 1),
    }
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(bytes: &[u8]) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    eprintln!("souk: {error}");
    ExitCode::from(code)
}
