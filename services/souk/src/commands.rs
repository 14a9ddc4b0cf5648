//! Commands of single roles other than running them.

use std::process::ExitCode;

use user::CreateOperatorError;

use crate::roles::CreateOperator;
use crate::{USAGE, print, print_error};

pub(crate) async fn create_operator(operator: &CreateOperator) -> ExitCode {
    match user::create_operator(&operator.config, &operator.email, &operator.password_file).await {
        Ok(done) => print(format!("{done}\n").as_bytes()),
        Err(error @ CreateOperatorError::Given(_)) => print_error(&error, USAGE),
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
