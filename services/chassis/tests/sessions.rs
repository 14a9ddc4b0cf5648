//! Sessions with Postgres that end while they are idle.

use std::time::Duration;

use chassis::boot::Database;
use chassis::boot::db::pool;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

async fn pid(db: &PgPool) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(db).await
}

/// One that was idle for a while is replaced before its next use; one that was used a moment ago may fail that use, and no other.
#[sqlx::test(migrations = false)]
async fn a_session_that_the_server_ended_is_replaced(options: PgPoolOptions, connect: PgConnectOptions) {
    let other = options.connect_with(connect.clone()).await.expect("Postgres is there");
    let end = async |pid: i32| {
        sqlx::query("select pg_terminate_backend($1, 5000)").bind(pid).execute(&other).await.expect("ended");
    };
    let url = connect.to_url_lossy().to_string().into();
    let ours = pool(&Database { database_url: url, database_password_file: None }, 1).expect("a good URL");

    let first = pid(&ours).await.expect("a session");
    end(first).await;
    // So long is a session idle that is asked before its use.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = pid(&ours).await.expect("another session");
    assert_ne!(first, second);

    end(second).await;
    // It fails, unless this took so long that the session was asked.
    let _at_once = pid(&ours).await;
    assert_ne!(pid(&ours).await.expect("a new session"), second);
}
