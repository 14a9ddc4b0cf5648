//! The connection pool of one service, with timeouts that bound the work of a caller that has left.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// The database of one service: its migrations, and its append-only tables.
#[derive(Debug)]
pub struct Schema {
    pub service: &'static str,
    pub migrator: &'static Migrator,
    pub append_only: &'static [&'static str],
}

/// The statement timeout, unless a caller has less time.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(2);

/// One column of many rows, for `unnest`.
pub fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The pool of a role: no statement takes longer than a caller would wait.
pub fn pool(url: &SecretString, connections: u32) -> Result<PgPool, String> {
    pool_with_timeout(url, connections, STATEMENT_TIMEOUT)
}

/// A pool that connects when first used, so that a role starts while its database is unreachable.
pub fn pool_with_timeout(url: &SecretString, connections: u32, slowest_statement: Duration) -> Result<PgPool, String> {
    let options: PgConnectOptions =
        url.expose_secret().parse().map_err(|error| format!("it is not a Postgres URL: {error}"))?;
    let options = options
        .application_name("souk")
        .options([
            ("statement_timeout", format!("{}ms", slowest_statement.as_millis()).as_str()),
            ("lock_timeout", "3s"),
            // A safety net: no session stays idle in an open transaction. While it does, as in a frozen process, retries of its
            // request are refused.
            ("idle_in_transaction_session_timeout", "5s"),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
    let pool = pool.before_acquire(|_, session| Box::pin(async move { Ok(is_trusted(session.age)) }));
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
    use sqlx::postgres::{PgConnection, PgSslMode};

    use super::*;

    /// Only a feature of a dependency makes `sslmode` of a URL work.
    #[sqlx::test(migrations = false)]
    async fn a_database_that_asks_for_tls_is_reached_by_tls(db: PgPool) {
        let options = db.connect_options().as_ref().clone().ssl_mode(PgSslMode::Require);
        let refused = PgConnection::connect_with(&options).await.expect_err("this server has no certificate");
        assert!(refused.to_string().contains("server does not support TLS"), "{refused}");
    }
}
