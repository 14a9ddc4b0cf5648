//! Who people are: accounts, sessions, and the keys that sign access tokens.
//!
//! Every other service learns who calls from an access token; it is made here and verified everywhere with the keys
//! published at `/.well-known/jwks.json`. A password is hashed before it reaches the database, a refresh token is stored
//! hashed; neither is ever logged, and no event carries personal data.

mod account;
pub mod check;
mod error;
mod get;
mod operator;
mod password;
mod register;
mod rpc;
mod service;
mod session;
mod signing;
mod update;

use std::path::PathBuf;
use std::sync::Arc;

use chassis::boot::{Foundation, Schema, Settings};
use chassis::{Context, Role};
use clap::Args;

pub use operator::{CreateOperatorError, create_operator};

use password::Passwords;
use service::{Service, role};
use signing::Signer;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/user");
pub static SCHEMA: Schema = Schema { service: "user", migrator: &MIGRATOR, append_only: &[], consumes: &[] };

/// The user service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// Keys of access tokens: PKCS#8 PEM files of P-256, comma-separated. The first signs, all are published.
    #[arg(value_delimiter = ',')]
    signing_key_files: Vec<PathBuf>,
    /// How many passwords are hashed at once; each takes 19 MiB.
    #[arg(default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    password_slots: u8,
}

impl Settings for Config {
    const ROLE: roster::Role = roster::USER;
    const CONNECTIONS: u32 = 10;
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let signer = Signer::read(&config.signing_key_files, &context.verifier.issuer, &context.verifier.audience)
        .map_err(|error| format!("USER_SIGNING_KEY_FILES: {error}"))?;
    let service = Service {
        db: config.foundation.pool(roster::USER)?,
        clock: context.clock.of_database(),
        passwords: Passwords::new(config.password_slots.into()),
        signer,
    };
    Ok(role(&Arc::new(service), context).listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
