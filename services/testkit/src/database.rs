//! What Postgres knows of a test's database.

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

/// How many transactions Postgres ended because they waited for each other. Closes the pool.
pub async fn deadlocks(db: &PgPool) -> i64 {
    // Sessions report when they have been idle for a second, or when they end.
    db.close().await;
    let mut fresh = PgConnection::connect_with(&db.connect_options()).await.expect("a connection");
    sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
        .fetch_one(&mut fresh)
        .await
        .expect("statistics")
}

/// Waits until so many statements of this database wait for locks.
pub async fn until_waiting(db: &PgPool, count: i64) {
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(db).await.expect("a count") < count {
        tokio::task::yield_now().await;
    }
}

/// The same database, through one session.
pub async fn one_session(db: &PgPool) -> PgPool {
    let connect = db.connect_options().as_ref().clone();
    PgPoolOptions::new().max_connections(1).connect_with(connect).await.expect("a session")
}

/// How many rows of a table Postgres has read. Only a session itself can say at once what it did, so there has to be one only.
pub async fn rows_read(session: &PgPool, table: &str) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(session).await.expect("it is told");
    let reads = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = $1";
    sqlx::query_scalar(reads).bind(table).fetch_one(session).await.expect("statistics")
}

/// What stands in all tables.
pub(crate) async fn digest(db: &PgPool) -> Vec<(String, String)> {
    let tables = "select tablename::text from pg_tables where schemaname = 'public' and tablename <> '_sqlx_migrations' order by 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(db).await.expect("the catalogue can be read");
    let mut digests = Vec::new();
    for table in tables {
        let rows = format!("select coalesce(string_agg(it::text, ' ' order by it::text), '') from \"{table}\" as it");
        let rows = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(db).await.expect("a table can be read");
        digests.push((table, rows));
    }
    digests
}
