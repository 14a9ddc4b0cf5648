//! Builds and runs the roles of a command.

use std::process::ExitCode;

use bus::Bus;
use chassis::boot::config::Common;
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::boot::telemetry;
use chassis::{Context, Role};

use crate::cli::{All, SingleRole};
use crate::ops::Ops;
use crate::{USAGE, fail};

/// The databases of `roster::services()`, in its order.
pub(crate) static SCHEMAS: [&Schema; 5] =
    [&user::SCHEMA, &product::SCHEMA, &inventory::SCHEMA, &order::SCHEMA, &payment::SCHEMA];

/// Runs the roles that `build` returns, until a signal.
pub(crate) async fn serve(
    name: &str,
    common: &Common,
    build: impl FnOnce(&Context) -> Result<Vec<Role>, String>,
) -> ExitCode {
    let telemetry = match telemetry::init(common, name) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error, USAGE),
    };
    let code = match prepare(common, build) {
        Err(error) => fail(&error, USAGE),
        Ok((roles, context)) => match chassis::boot::run(roles, common, context).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
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
    let bus = Bus::new(common).map_err(|error| format!("SOUK_KAFKA_BROKERS: {error}"))?;
    let attached = roles.into_iter().map(|role| bus.attach(Ops::serve(role, &context), &context)).collect();
    Ok((attached, context))
}

/// Every role, in the order in which a request passes them.
pub(crate) fn all(config: &All, context: &Context) -> Result<Vec<Role>, String> {
    Ok(vec![
        gateway::start(&config.gateway.0, context)?,
        user::start(&config.user.0, &config.common, context)?,
        product::start(&config.product.0, context)?,
        inventory::start(&config.inventory.0, context)?,
        order::start(&config.order.0, context)?,
        payment::start(&config.payment.0, context)?,
    ])
}

pub(crate) async fn run_one<C: Settings>(
    single: &SingleRole<C>,
    start: impl FnOnce(&C, &Context) -> Result<Role, String>,
) -> ExitCode {
    serve(C::ROLE.name, &single.common, |context| Ok(vec![start(&single.role.0, context)?])).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_the_roster_has_its_schema() {
        let (known, all) = (SCHEMAS.map(|schema| schema.service), roster::services().map(|role| role.name));
        assert!(all.eq(known));
    }
}
