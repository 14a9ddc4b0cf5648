//! Who people are: accounts, sessions, and the keys that sign access tokens.
//!
//! Every other service learns who calls from an access token; it is made here and verified everywhere with the keys
//! published at `/.well-known/jwks.json`. A password is hashed before it reaches the database, a refresh token is stored
//! hashed; neither is ever logged, and no event carries personal data.

mod account;
mod change_password;
pub mod check;
mod contact;
mod create_session;
mod delete_session;
mod disable;
mod document;
mod erase;
mod error;
mod event;
mod get;
mod hash;
mod list;
mod list_sessions;
mod mail;
mod mail_link;
mod operator;
mod password;
mod password_log;
mod prune;
mod refresh_session;
mod refresh_token;
mod register;
mod reset_password;
mod revocation;
mod rpc;
mod service;
mod session;
mod signing;
mod threads;
mod throttle;
mod update;
mod verify_email;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chassis::Wake;
use chassis::boot::config::{first_line, parse_duration, parse_http_url};
use chassis::boot::{Foundation, Prefixed, Schema, Settings};
use chassis::redis::{self, Redis};
use chassis::{Context, Role};
use clap::{ArgAction, Args};
use secrecy::SecretString;

pub use operator::{CreateOperatorError, create_operator};

use mail::Links;
use password::Passwords;
use password_log::PasswordLog;
use service::{Service, role};
use session::Limits;
use signing::Signer;
use throttle::{Pace, Throttle};

pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/user");
pub static SCHEMA: Schema = Schema { service: "user", migrator: &MIGRATOR, append_only: &[], consumes: &[] };

/// The user service.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    foundation: Foundation,
    /// A folder with the keys of access tokens: PKCS#8 PEM files of P-256, whose names end with `.pem`. It is read every 15
    /// seconds. To replace a key, add a file, and remove the old one once the new key signs, which the log says.
    signing_key_folder: Option<PathBuf>,
    /// How long a new key is published before it signs. Every role fetches it within 15 seconds, and the edge within a minute.
    #[arg(default_value = "10m", value_parser = parse_duration)]
    signing_key_lead: Duration,
    /// How many passwords are hashed at once; each takes 19 MiB. If it is not set: half as many as there
    /// are processors, so that a flood of logins leaves the others.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    password_slots: Option<u8>,
    /// When a session ends that is not used.
    #[arg(default_value = "30d", value_parser = parse_session_time)]
    session_idle: Duration,
    /// When a session ends that is used.
    #[arg(default_value = "90d", value_parser = parse_session_time)]
    session_lifetime: Duration,
    /// How many sessions a user has at most: signing in once more ends the one that was not used for longest.
    #[arg(default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    sessions_per_user: u16,
    /// A file whose first line is a secret: at least 32 random characters, the same for all replicas. The tokens of links in mails and
    /// of known devices are derived from it. With another secret, links that were sent before still work, mails that were not
    /// yet sent get none, and no device is known any more.
    mail_key_file: Option<PathBuf>,
    #[command(flatten)]
    redis: Prefixed<redis::Config>,
    /// The page of the shop that sets a new password. `#token=` and the token are added.
    #[arg(default_value = "http://127.0.0.1:8080/reset-password", value_parser = parse_http_url)]
    reset_page: String,
    /// The page of the shop that verifies an e-mail address. `#token=` and the token are added.
    #[arg(default_value = "http://127.0.0.1:8080/verify-email", value_parser = parse_http_url)]
    verify_page: String,
    /// Log the links of mails, with their tokens: for a machine that sends no mail. A reader of the log can use them.
    #[arg(default_value_t = false, action = ArgAction::Set)]
    print_links: bool,
}

/// The secret of links.
fn mail_key(file: Option<&Path>) -> Result<SecretString, String> {
    let key = first_line(file.ok_or("USER_MAIL_KEY_FILE is required")?);
    let key = key.map_err(|why| format!("USER_MAIL_KEY_FILE: {why}"))?;
    if key.len() < 32 {
        Err("USER_MAIL_KEY_FILE: its first line has less than 32 characters".to_owned())
    } else {
        Ok(key.into())
    }
}

/// From a minute to ten years.
fn parse_session_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let is_sensible = (Duration::from_secs(60)..=Duration::from_secs(3_650 * 24 * 3_600)).contains(&time);
    if is_sensible { Ok(time) } else { Err(format!("`{text}` is not between 1m and 3650d")) }
}

impl Settings for Config {
    const ROLE: roster::Role = roster::USER;
    const CONNECTIONS: u32 = 10;
}

fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

pub fn start(config: &Config, context: &Context) -> Result<Role, String> {
    let (issuer, audience) = (&context.verifier.issuer, &context.verifier.audience);
    let folder = config.signing_key_folder.as_ref().ok_or("USER_SIGNING_KEY_FOLDER is required")?;
    let signer = Signer::read(folder, config.signing_key_lead, issuer, audience)
        .map_err(|error| format!("USER_SIGNING_KEY_FOLDER: {error}"))?;
    let (redis, key) = (Redis::new(&config.redis)?, mail_key(config.mail_key_file.as_deref())?);
    let service = Service {
        db: config.foundation.pool(roster::USER)?,
        clock: context.clock.of_database(),
        passwords: Passwords::new(config.password_slots.map_or_else(half_of_the_processors, usize::from)),
        signer,
        links: Links {
            key: key.clone(),
            reset_page: config.reset_page.clone(),
            verify_page: config.verify_page.clone(),
            print: config.print_links,
        },
        throttle: Throttle::new(redis.clone(), "souk:login", key, Pace::default()),
        password_log: PasswordLog::new(),
        published: Wake::default(),
        reset_requested: Wake::default(),
        sessions: Limits {
            idle: config.session_idle,
            lifetime: config.session_lifetime,
            per_user: config.sessions_per_user,
        },
    };
    let role = role(&Arc::new(service), context).background("redis", |stop| redis.run(stop));
    Ok(role.listen_on(config.foundation.listen))
}

#[cfg(test)]
mod tests;
