//! The command line of `souk`. Configuration comes from the environment; the flags of the same names exist so that `--help`
//! documents it.

use std::path::PathBuf;

use chassis::boot::config::Common;
use chassis::boot::settings::{RoleSettings, Settings};
use clap::{Args, Parser, Subcommand};

use crate::migrate;
use chassis::boot::Databases;

#[derive(Debug, Parser)]
#[command(name = "souk", version, about = "A commerce backend: every role, and administrative commands")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs every role in one process, each on its own port.
    All(Box<All>),
    /// Runs the gateway: gRPC reflection at the edge.
    Gateway(SingleRole<gateway::Config>),
    /// Runs the user service, or one of its commands.
    User(Box<User>),
    /// Runs the product service.
    Product(SingleRole<product::Config>),
    /// Runs the inventory service.
    Inventory(SingleRole<inventory::Config>),
    /// Runs the order service, or one of its commands.
    Order(Box<Order>),
    /// Runs the payment service.
    Payment(SingleRole<payment::Config>),
    /// Creates databases, database roles, tables and topics, or brings them up to date.
    Migrate(migrate::Config),
    /// Checks the invariants over all databases, all topics and the payment provider: one line each, exit code 1 if one is
    /// violated.
    #[command(after_help = check::help())]
    Check(Box<Check>),
    /// Prints the edge's Envoy configuration.
    Envoy(Box<edge::Config>),
    /// Prints the contracts as a FileDescriptorSet.
    Descriptors,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) databases: Databases,
    #[command(flatten)]
    pub(crate) check: check::Config,
}

#[derive(Debug, Args)]
pub(crate) struct SingleRole<C: Settings> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) role: RoleSettings<C>,
}

#[derive(Debug, Args)]
pub(crate) struct All {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) gateway: RoleSettings<gateway::Config>,
    #[command(flatten)]
    pub(crate) user: RoleSettings<user::Config>,
    #[command(flatten)]
    pub(crate) product: RoleSettings<product::Config>,
    #[command(flatten)]
    pub(crate) inventory: RoleSettings<inventory::Config>,
    #[command(flatten)]
    pub(crate) order: RoleSettings<order::Config>,
    #[command(flatten)]
    pub(crate) payment: RoleSettings<payment::Config>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct User {
    #[command(subcommand)]
    pub(crate) command: Option<UserCommand>,
    #[command(flatten)]
    pub(crate) single: SingleRole<user::Config>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Creates an operator's account. Does nothing if it exists.
    CreateOperator(CreateOperator),
}

#[derive(Debug, Args)]
pub(crate) struct CreateOperator {
    #[command(flatten)]
    pub(crate) config: RoleSettings<user::Config>,
    /// The operator's e-mail address.
    #[arg(long)]
    pub(crate) email: String,
    /// A file with the password in its first line.
    #[arg(long)]
    pub(crate) password_file: PathBuf,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Order {
    #[command(subcommand)]
    pub(crate) command: Option<OrderCommand>,
    #[command(flatten)]
    pub(crate) single: SingleRole<order::Config>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Rebuilds the orders from their events in a temporary table, and prints how they differ from the orders in use. It
    /// changes nothing.
    Rebuild(RoleSettings<order::Config>),
}
