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

use chassis::boot::config::{Common, Secret, parse_loopback};
use chassis::boot::db::{self, Schema};
use chassis::rpc::idempotency;
use chassis::{Clock, Context, Role};
use chassis::{Did, Step};
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
#[group(skip)]
pub struct Config {
    /// Where it listens for gRPC.
    #[arg(
        id = "USER_LISTEN",
        long = "user-listen",
        env = "USER_LISTEN",
        default_value = "127.0.0.1:9002",
        value_parser = parse_loopback
    )]
    listen: SocketAddr,
    /// Its database, with its role.
    #[arg(
        id = "USER_DATABASE_URL",
        long = "user-database-url",
        env = "USER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_user@127.0.0.1:15432/souk_user"
    )]
    database_url: Secret,
    /// How many connections it may have to its database.
    #[arg(
        id = "USER_DATABASE_CONNECTIONS",
        long = "user-database-connections",
        env = "USER_DATABASE_CONNECTIONS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    database_connections: u32,
    /// Keys of access tokens: PKCS#8 PEM files of P-256, comma-separated. The first signs, all are published.
    #[arg(
        id = "USER_SIGNING_KEY_FILES",
        long = "user-signing-key-files",
        env = "USER_SIGNING_KEY_FILES",
        value_delimiter = ','
    )]
    signing_key_files: Vec<PathBuf>,
    /// How many passwords are hashed at once; each takes 19 MiB.
    #[arg(
        id = "USER_PASSWORD_SLOTS",
        long = "user-password-slots",
        env = "USER_PASSWORD_SLOTS",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(1..=64)
    )]
    password_slots: u8,
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
        clock: context.clock.clone(),
        passwords: Passwords::new(config.password_slots.into()),
        signer,
    };
    Ok(role(service, config.listen, context))
}

impl Config {
    fn pool(&self) -> Result<PgPool, String> {
        db::pool(&self.database_url, self.database_connections).map_err(|error| format!("USER_DATABASE_URL: {error}"))
    }
}

fn role(service: Service, listen: SocketAddr, context: &Context) -> Role {
    let service = Arc::new(service);
    let minute = Duration::from_secs(60);
    let db = service.db.clone();
    let forget_answers = Step::new("user.forget_answers", minute, move || {
        let db = db.clone();
        async move { Ok(Did::any(idempotency::forget_old(&db).await?)) }
    });
    let db = service.db.clone();
    let forget_sessions = Step::new("user.forget_sessions", minute, move || {
        let db = db.clone();
        async move { Ok(Did::any(session::forget_old(&db).await?)) }
    });
    Role::new("user", "souk.user", listen, context)
        .needs(service.db.clone())
        .serve(UserServiceServer::new(Rpc(service.clone())))
        .serve(SessionServiceServer::new(Rpc(service.clone())))
        .admin(signing::pages(&service.signer))
        .step(forget_answers)
        .step(forget_sessions)
}

#[cfg(test)]
mod tests;
