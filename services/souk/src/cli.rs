//! The command line of `souk`. Configuration comes from the environment; the flags of the same names exist so that `--help`
//! documents it.

use std::path::PathBuf;

use chassis::boot::{Databases, Prefixed};
use chassis::tls::Tls;
use clap::{Args, Parser, Subcommand};

use crate::health::Health;
use crate::migrate;
use crate::roles::RoleCommand;

#[derive(Debug, Parser)]
#[command(name = "souk", version, about = "A commerce backend: every role, and administrative commands")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Role(Box<RoleCommand>),
    /// Asks a role of this machine for its health, over its own TLS: exit code 0 if it is SERVING. The probe of containers.
    Health(Box<Health>),
    /// Creates databases, database roles, tables and topics, or brings them up to date.
    Migrate(Prefixed<migrate::Config>),
    /// Checks the invariants over all databases, all topics and the payment provider: one line each, exit code 1 if one is
    /// violated.
    #[command(after_help = check::help())]
    Check(Box<Check>),
    /// Prints the edge's Envoy configuration, or writes all that Envoy reads into a folder.
    Envoy(Box<Envoy>),
    /// Prints a file of EDGE_SECRETS_DIRECTORY: where Envoy finds certificates.
    EnvoySecret(EnvoySecret),
    /// Prints the contracts as a FileDescriptorSet.
    Descriptors,
}

#[derive(Debug, Args)]
pub(crate) struct Envoy {
    /// Writes it to `envoy.yaml` in this folder, with the files of EDGE_SECRETS_DIRECTORY beside it: for images without a shell.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: Prefixed<edge::Config>,
}

#[derive(Debug, Args)]
pub(crate) struct EnvoySecret {
    pub(crate) secret: edge::Secret,
    #[command(flatten)]
    pub(crate) tls: Prefixed<Tls>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) databases: Databases,
    #[command(flatten)]
    pub(crate) config: Prefixed<check::Config>,
    #[command(flatten)]
    pub(crate) options: check::Options,
}
