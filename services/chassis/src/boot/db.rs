//! The connection pool of one service, with timeouts that bound the work of a caller that has left.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use url::Url;

use crate::boot::config::first_line;

/// What `souk migrate` sets up for one service: its tables, which of them are append-only, and which topics it may read.
#[derive(Debug)]
pub struct Schema {
    pub service: &'static str,
    pub migrator: &'static Migrator,
    pub append_only: &'static [&'static str],
    pub consumes: &'static [&'static str],
}

/// How to reach a database.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The URL of the database, with the database role. Unless its `sslmode` says otherwise, the connection is encrypted and the
    /// server's certificate is verified, against `sslrootcert`.
    #[arg(hide_env_values = true)]
    pub database_url: SecretString,
    /// A file with the password of the database role in its first line.
    pub database_password_file: Option<PathBuf>,
}

/// A setting of a [`Database`], and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    pub setting: &'static str,
    pub why: String,
}

impl Database {
    pub fn options(&self) -> Result<PgConnectOptions, Invalid> {
        let invalid = |setting, why| Invalid { setting, why };
        let url = Url::parse(self.database_url.expose_secret());
        let url = url.map_err(|error| invalid("database_url", format!("it is not a Postgres URL: {error}")))?;
        let options = PgConnectOptions::from_url(&url);
        let options = options.map_err(|error| invalid("database_url", format!("it is not a Postgres URL: {error}")))?;
        let options = match url.query_pairs().any(|(name, _)| matches!(&*name, "sslmode" | "ssl-mode")) {
            true => options,
            false => options.ssl_mode(PgSslMode::VerifyFull),
        };
        let Some(password) = self.password()? else { return Ok(options) };
        if url.password().is_some() {
            return Err(invalid("database_password_file", "the URL has a password, too".to_owned()));
        }
        Ok(options.password(password.expose_secret()))
    }

    /// What the file says.
    pub fn password(&self) -> Result<Option<SecretString>, Invalid> {
        let password = self.database_password_file.as_deref().map(first_line).transpose();
        let password = password.map_err(|why| Invalid { setting: "database_password_file", why })?;
        Ok(password.map(SecretString::from))
    }
}

/// The statement timeout, unless a caller has less time.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that was idle for so long is asked whether it still works before it is used. One that worked a moment ago is not: that
/// would be a round trip for each use. A question that gets no reply ends when the caller has waited long enough, unlike a statement,
/// so this is short: when a server falls silent, few sessions are lost to it.
const ASK_AFTER: Duration = Duration::from_millis(100);
/// How long a caller waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(2);

/// One column of many rows, for `unnest`.
pub fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The pool of a role: no statement takes longer than a caller would wait.
pub fn pool(database: &Database, connections: u32) -> Result<PgPool, Invalid> {
    pool_with_timeout(database, connections, STATEMENT_TIMEOUT)
}

/// A pool that connects when first used, so that a role starts while its database is unreachable.
pub fn pool_with_timeout(
    database: &Database,
    connections: u32,
    slowest_statement: Duration,
) -> Result<PgPool, Invalid> {
    let options = database
        .options()?
        .application_name("souk")
        .options([
            ("statement_timeout", format!("{}ms", slowest_statement.as_millis()).as_str()),
            ("lock_timeout", "3s"),
            // A safety net: no session stays idle in an open transaction. While it does, as in a frozen process, retries of its
            // request are refused.
            ("idle_in_transaction_session_timeout", "5s"),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE).test_before_acquire(false);
    let pool = pool.before_acquire(|session, used| {
        Box::pin(async move { Ok(is_trusted(used.age) && (used.idle_for < ASK_AFTER || session.ping().await.is_ok())) })
    });
    Ok(pool.connect_lazy_with(options))
}

/// Sessions that were open at this time are not used any more.
static DISTRUSTED: Mutex<Option<Instant>> = Mutex::new(None);

/// Called when a database is read-only: open sessions may stay read-only for ever, such as those with a primary that became a
/// standby while its name moved to another server. Pools close them and open new ones.
pub(crate) fn distrust_open_sessions() {
    *DISTRUSTED.lock().expect("nothing panics while it holds this lock") = Some(Instant::now());
}

fn is_trusted(age: Duration) -> bool {
    let distrusted = *DISTRUSTED.lock().expect("nothing panics while it holds this lock");
    distrusted.is_none_or(|at| age < at.elapsed())
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;
    use sqlx::postgres::PgConnection;

    use super::*;

    fn database(url: &str, password_file: Option<PathBuf>) -> Database {
        Database { database_url: url.into(), database_password_file: password_file }
    }

    #[test]
    fn certificates_are_verified_unless_the_url_says_otherwise() {
        let mode = |url| format!("{:?}", database(url, None).options().expect("a good URL").get_ssl_mode());
        assert_eq!(mode("postgres://order@db/order?sslrootcert=/ca.crt"), "VerifyFull");
        assert_eq!(mode("postgres://order@db/order?sslmode=disable"), "Disable");
    }

    #[test]
    fn a_password_is_in_one_place() {
        let file = std::env::temp_dir().join(format!("souk-password-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, "secret\n").expect("written");
        let both = database("postgres://order:other@db/order", Some(file.clone())).options();
        assert_eq!(both.expect_err("two passwords").setting, "database_password_file");
        assert!(database("postgres://order@db/order", Some(file.clone())).options().is_ok());
        std::fs::remove_file(&file).expect("it goes");
        let missing = database("postgres://order@db/order", Some(file)).options().expect_err("no file");
        assert_eq!(missing.setting, "database_password_file");
    }

    /// Only a feature of a dependency makes `sslmode` of a URL work.
    #[sqlx::test(migrations = false)]
    async fn a_database_that_asks_for_tls_is_reached_by_tls(db: PgPool) {
        let options = db.connect_options().as_ref().clone().ssl_mode(PgSslMode::Require);
        let refused = PgConnection::connect_with(&options).await.expect_err("this server has no certificate");
        assert!(refused.to_string().contains("server does not support TLS"), "{refused}");
    }
}
