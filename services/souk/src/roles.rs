//! From a command to running roles.

use std::process::ExitCode;

use bus::Bus;
use chassis::boot::config::Common;
use chassis::boot::telemetry;
use chassis::{Context, Role};

use crate::cli::{All, One};
use crate::ops::Ops;
use crate::{USAGE, say};

/// Starts what `make` makes, and runs it until a signal.
pub(crate) async fn serve(
    name: &str,
    common: &Common,
    make: impl FnOnce(&Context) -> Result<Vec<Role>, String>,
) -> ExitCode {
    let telemetry = match telemetry::init(common, name) {
        Ok(telemetry) => telemetry,
        Err(error) => return say(&error, USAGE),
    };
    let code = match prepare(common, make) {
        Err(error) => say(&error, USAGE),
        Ok((roles, context)) => match chassis::boot::run(roles, common, context).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(&error, 1),
        },
    };
    telemetry.shutdown();
    code
}

fn prepare(
    common: &Common,
    make: impl FnOnce(&Context) -> Result<Vec<Role>, String>,
) -> Result<(Vec<Role>, Context), String> {
    let context = Context::new(common, contracts::DESCRIPTORS).map_err(|error| error.to_string())?;
    // Everything is parsed before the first socket opens.
    let roles = make(&context)?;
    let bus = Bus::new(common).map_err(|error| format!("SOUK_KAFKA_BROKERS: {error}"))?;
    let attached = roles.into_iter().map(|role| bus.attach(Ops::serve(role, &context), &context)).collect();
    Ok((attached, context))
}

/// Every role, in the order in which requests meet them.
pub(crate) fn all(config: &All, context: &Context) -> Result<Vec<Role>, String> {
    Ok(vec![
        gateway::start(&config.gateway, context)?,
        user::start(&config.user, &config.common, context)?,
        product::start(&config.product, context)?,
        inventory::start(&config.inventory, context)?,
        order::start(&config.order, context)?,
        payment::start(&config.payment, context)?,
    ])
}

pub(crate) async fn one<C: clap::Args>(
    name: &str,
    one: &One<C>,
    start: impl FnOnce(&C, &Context) -> Result<Role, String>,
) -> ExitCode {
    serve(name, &one.common, |context| Ok(vec![start(&one.role, context)?])).await
}
