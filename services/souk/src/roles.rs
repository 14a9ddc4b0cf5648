//! The roles of this binary: the subcommand, settings and schema of each, and how it starts. A new service is added here and
//! in `roster`.

use std::path::PathBuf;
use std::process::ExitCode;

use chassis::boot::config::Common;
use chassis::boot::{Prefixed, Schema, Settings};
use chassis::{Context, Role};
use clap::{Args, Subcommand};

use crate::commands::{create_operator, import_products, rebuild_orders};
use crate::serve::serve;

/// The schemas of `roster::services()`, in its order.
pub(crate) static SCHEMAS: &[&Schema] = &[
    &user::SCHEMA,
    &product::SCHEMA,
    &inventory::SCHEMA,
    &order::SCHEMA,
    &payment::SCHEMA,
    &notification::SCHEMA,
    &analytics::SCHEMA,
];

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Runs every role in one process, each on its own port.
    All(Box<All>),
    /// Runs the gateway: exact rate limits, and gRPC reflection at the edge.
    Gateway(SingleRole<gateway::Config>),
    /// Runs the user service, or one of its commands.
    User(Box<SingleOr<user::Config, UserCommand>>),
    /// Runs the product service, or one of its commands.
    Product(Box<SingleOr<product::Config, ProductCommand>>),
    /// Runs the inventory service.
    Inventory(SingleRole<inventory::Config>),
    /// Runs the order service, or one of its commands.
    Order(Box<SingleOr<order::Config, OrderCommand>>),
    /// Runs the payment service.
    Payment(SingleRole<payment::Config>),
    /// Runs the notification service.
    Notification(Box<SingleRole<notification::Config>>),
    /// Runs the analytics service.
    Analytics(SingleRole<analytics::Config>),
}

#[derive(Debug, Args)]
pub(crate) struct All {
    #[command(flatten)]
    common: Prefixed<Common>,
    #[command(flatten)]
    gateway: Prefixed<gateway::Config>,
    #[command(flatten)]
    user: Prefixed<user::Config>,
    #[command(flatten)]
    product: Prefixed<product::Config>,
    #[command(flatten)]
    inventory: Prefixed<inventory::Config>,
    #[command(flatten)]
    order: Prefixed<order::Config>,
    #[command(flatten)]
    payment: Prefixed<payment::Config>,
    #[command(flatten)]
    notification: Prefixed<notification::Config>,
    #[command(flatten)]
    analytics: Prefixed<analytics::Config>,
}

#[derive(Debug, Args)]
pub(crate) struct SingleRole<C: Settings> {
    #[command(flatten)]
    common: Prefixed<Common>,
    #[command(flatten)]
    role: Prefixed<C>,
}

/// A role that has further commands.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SingleOr<C: Settings, S: Subcommand> {
    #[command(subcommand)]
    command: Option<S>,
    #[command(flatten)]
    single: SingleRole<C>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Creates an operator's account. Does nothing if it exists.
    CreateOperator(CreateOperator),
}

#[derive(Debug, Args)]
pub(crate) struct CreateOperator {
    #[command(flatten)]
    pub(crate) config: Prefixed<user::Config>,
    /// The operator's e-mail address.
    #[arg(long)]
    pub(crate) email: String,
    /// A file with the password in its first line.
    #[arg(long)]
    pub(crate) password_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProductCommand {
    /// Creates products from a CSV file, as an operator at the edge. Run again, it continues.
    Import(product::Import),
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Rebuilds the orders from their events in a temporary table, and prints how they differ from the orders in use. It
    /// changes nothing.
    Rebuild(Prefixed<order::Config>),
}

pub(crate) async fn run(command: RoleCommand) -> ExitCode {
    match command {
        RoleCommand::All(roles) => serve("all", &roles.common, |context| roles.start(context)).await,
        RoleCommand::Gateway(single) => single.serve(gateway::start).await,
        RoleCommand::User(user) => match user.command {
            Some(UserCommand::CreateOperator(operator)) => create_operator(&operator).await,
            None => user.single.serve(user::start).await,
        },
        RoleCommand::Product(product) => match product.command {
            Some(ProductCommand::Import(import)) => import_products(&import).await,
            None => product.single.serve(product::start).await,
        },
        RoleCommand::Inventory(single) => single.serve(inventory::start).await,
        RoleCommand::Order(order) => match order.command {
            Some(OrderCommand::Rebuild(config)) => rebuild_orders(&config).await,
            None => order.single.serve(order::start).await,
        },
        RoleCommand::Payment(single) => single.serve(payment::start).await,
        RoleCommand::Notification(single) => single.serve(notification::start).await,
        RoleCommand::Analytics(single) => single.serve(analytics::start).await,
    }
}

impl All {
    /// In the order in which a request passes them.
    fn start(&self, context: &Context) -> Result<Vec<Role>, String> {
        Ok(vec![
            gateway::start(&self.gateway, context)?,
            user::start(&self.user, context)?,
            product::start(&self.product, context)?,
            inventory::start(&self.inventory, context)?,
            order::start(&self.order, context)?,
            payment::start(&self.payment, context)?,
            notification::start(&self.notification, context)?,
            analytics::start(&self.analytics, context)?,
        ])
    }
}

impl<C: Settings> SingleRole<C> {
    async fn serve(&self, start: impl FnOnce(&C, &Context) -> Result<Role, String>) -> ExitCode {
        serve(C::ROLE.name, &self.common, |context| Ok(vec![start(&self.role, context)?])).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_the_roster_has_its_schema() {
        let (known, all) = (SCHEMAS.iter().map(|schema| schema.service), roster::services().map(|role| role.name));
        assert!(all.eq(known));
    }
}
