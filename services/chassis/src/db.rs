//! The pool of one service, with the timeouts that end what a forgotten caller began.

use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::config::Secret;

/// The database of one service: its schema, and the tables that its role may only add to.
#[derive(Debug)]
pub struct Schema {
    pub service: &'static str,
    pub migrator: &'static Migrator,
    pub append_only: &'static [&'static str],
}

/// How long a statement may take that nobody gave less time.
pub(crate) const SLOWEST_STATEMENT: Duration = Duration::from_secs(5);
/// How long a caller waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(2);

/// Connects when first needed, so that a role starts while its database is still away.
pub fn pool(url: &Secret, connections: u32) -> Result<PgPool, String> {
    let options: PgConnectOptions =
        url.reveal().parse().map_err(|error| format!("it is not a Postgres URL: {error}"))?;
    let options = options
        .application_name("souk")
        .options([
            ("statement_timeout", format!("{}ms", SLOWEST_STATEMENT.as_millis()).as_str()),
            ("lock_timeout", "3s"),
            // A net, not a plan: no session stays in an open transaction that nobody works on. A process that stands still in
            // the middle of one holds up whoever repeats its request for so long.
            ("idle_in_transaction_session_timeout", "5s"),
        ])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE);
    Ok(pool.connect_lazy_with(options))
}
