//! From a command to running roles.

use std::process::ExitCode;

use bus::Bus;
use chassis::boot::config::Common;
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::boot::telemetry;
use chassis::{Context, Role};

use crate::cli::{All, One};
use crate::ops::Ops;
use crate::{USAGE, say};

/// The databases of `roster::services()`, in its order.
pub(crate) static SCHEMAS: [&Schema; 5] =
    [&user::SCHEMA, &product::SCHEMA, &inventory::SCHEMA, &order::SCHEMA, &payment::SCHEMA];

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
        gateway::start(&config.gateway.0, context)?,
        user::start(&config.user.0, &config.common, context)?,
        product::start(&config.product.0, context)?,
        inventory::start(&config.inventory.0, context)?,
        order::start(&config.order.0, context)?,
        payment::start(&config.payment.0, context)?,
    ])
}

pub(crate) async fn one<C: Settings>(
    one: &One<C>,
    start: impl FnOnce(&C, &Context) -> Result<Role, String>,
) -> ExitCode {
    serve(C::ROLE.name, &one.common, |context| Ok(vec![start(&one.role.0, context)?])).await
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
