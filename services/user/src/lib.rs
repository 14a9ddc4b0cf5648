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
mod session;
mod signing;
mod update;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::boot::config::{Common, Foundation};
use chassis::boot::db::Schema;
use chassis::boot::settings::Settings;
use chassis::{Clock, Context, Role};
use chassis::{Did, Job};
use clap::Args;
use contracts::souk::user::v1::session_service_server::SessionServiceServer;
use contracts::souk::user::v1::user_service_server::UserServiceServer;
use sqlx::PgPool;

pub use operator::{CreateOperatorError, create_operator};

use password::Passwords;
use rpc::Rpc;
use signing::Signer;

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/user");
pub static SCHEMA: Schema = Schema { service: "user", migrator: &MIGRATOR, append_only: &[] };

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

struct Service {
    db: PgPool,
    clock: Clock,
    passwords: Passwords,
    signer: Signer,
}

pub fn start(config: &Config, common: &Common, context: &Context) -> Result<Role, String> {
    let signer = Signer::read(&config.signing_key_files, &common.token_issuer, &common.token_audience)
        .map_err(|error| format!("USER_SIGNING_KEY_FILES: {error}"))?;
    let service = Service {
        db: config.pool()?,
        clock: context.clock.of_database(),
        passwords: Passwords::new(config.password_slots.into()),
        signer,
    };
    Ok(role(service, config.foundation.listen, context))
}

impl Config {
    fn pool(&self) -> Result<PgPool, String> {
        self.foundation.pool(roster::USER)
    }
}

fn role(service: Service, listen: SocketAddr, context: &Context) -> Role {
    let service = Arc::new(service);
    let minute = Duration::from_secs(60);
    let db = service.db.clone();
    let forget_sessions = Job::new("user.forget_sessions", minute, move || {
        let db = db.clone();
        async move { Ok(Did::any(session::forget_old(&db).await?)) }
    });
    Role::new(roster::USER, listen, context)
        .database(&service.db, &service.clock)
        .serve(UserServiceServer::new(Rpc(service.clone())))
        .serve(SessionServiceServer::new(Rpc(service.clone())))
        .admin(signing::pages(&service.signer))
        .job(forget_sessions)
}

#[cfg(test)]
mod tests;
