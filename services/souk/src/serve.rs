//! Runs roles in a process until a signal.

use std::process::ExitCode;

use bus::Bus;
use chassis::boot::config::Common;
use chassis::boot::telemetry;
use chassis::{Context, Role};

use crate::ops::Ops;
use crate::{USAGE, print_error};

/// Runs the roles that `build` returns, until a signal.
pub(crate) async fn serve(
    name: &str,
    common: &Common,
    build: impl FnOnce(&Context) -> Result<Vec<Role>, String>,
) -> ExitCode {
    let telemetry = match telemetry::init(common, name) {
        Ok(telemetry) => telemetry,
        Err(error) => return print_error(&error, USAGE),
    };
    let code = match prepare(common, build) {
        Err(error) => print_error(&error, USAGE),
        Ok((roles, context)) => match chassis::boot::run(roles, common, context).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => print_error(&error, 1),
        },
    };
    telemetry.shutdown();
    code
}

fn prepare(
    common: &Common,
    build: impl FnOnce(&Context) -> Result<Vec<Role>, String>,
) -> Result<(Vec<Role>, Context), String> {
    let context = Context::new(common, contracts::DESCRIPTORS).map_err(|error| error.to_string())?;
    // All settings are parsed before the first socket opens.
    let roles = build(&context)?;
    for role in &roles {
        context.certificates.of(role.name)?;
    }
    let bus = Bus::new(common);
    let attached = roles.into_iter().map(|role| bus.attach(Ops::serve(role, &context), &context));
    Ok((attached.collect::<Result<_, _>>()?, context))
}
