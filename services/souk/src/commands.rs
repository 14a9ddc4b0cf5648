//! Commands of single roles other than running them, and that of the edge.

use std::path::Path;
use std::process::ExitCode;

use product::{Import, ImportError};
use user::CreateOperatorError;

use crate::cli::Envoy;
use crate::roles::CreateOperator;
use crate::{USAGE, print, print_error};

pub(crate) async fn create_operator(operator: &CreateOperator) -> ExitCode {
    match user::create_operator(&operator.config, &operator.email, &operator.password_file).await {
        Ok(done) => print(format!("{done}\n").as_bytes()),
        Err(error @ CreateOperatorError::Given(_)) => print_error(&error, USAGE),
        Err(error) => print_error(&error, 1),
    }
}

pub(crate) async fn import_products(import: &Import) -> ExitCode {
    match product::import(import).await {
        Ok(report) => {
            let printed = print(format!("{report}\n").as_bytes());
            if report.is_complete() { printed } else { ExitCode::FAILURE }
        }
        Err(error @ ImportError::Given(_)) => print_error(&error, USAGE),
        Err(error) => print_error(&error, 1),
    }
}

pub(crate) async fn rebuild_orders(config: &order::Config) -> ExitCode {
    let mut differ = 0;
    let rebuilt = order::rebuild(config, |difference| {
        differ += 1;
        println!("{}: {}", difference.order_id, difference.why);
    });
    match rebuilt.await {
        Ok(count) => println!("{count} orders were rebuilt from their events, {differ} differ"),
        Err(error) => return print_error(&error, 1),
    }
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn configure_envoy(envoy: &Envoy) -> ExitCode {
    let yaml = match edge::render(&envoy.config, contracts::DESCRIPTORS) {
        Ok(yaml) => yaml,
        Err(error) => return print_error(&error, USAGE),
    };
    let Some(directory) = &envoy.directory else { return print(yaml.as_bytes()) };
    let mut files = vec![("envoy.yaml", yaml)];
    for (secret, name) in [(edge::Secret::Edge, "edge.yaml"), (edge::Secret::Authority, "authority.yaml")] {
        match edge::render_secret(secret, &envoy.config.tls) {
            Ok(yaml) => files.push((name, yaml)),
            Err(error) => return print_error(&error, USAGE),
        }
    }
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| files.iter().try_for_each(|(name, yaml)| replace(&directory.join(name), yaml)));
    match written {
        Ok(()) => print(format!("{}: written\n", directory.display()).as_bytes()),
        Err(error) => print_error(&format!("--directory {}: {error}", directory.display()), 1),
    }
}

/// A running Envoy reads a file again when another one is moved to its place.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}
