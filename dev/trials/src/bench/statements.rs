//! Which statements cost most, from `pg_stat_statements`.

use anyhow::Result;
use sqlx::PgConnection;

const MOST: i64 = 25;

/// Forgets all statements, and measures from now on how long they are planned, too.
pub(super) async fn reset(db: &mut PgConnection) -> Result<()> {
    sqlx::query("alter system set pg_stat_statements.track_planning = on").execute(&mut *db).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut *db).await?;
    sqlx::query("select pg_stat_statements_reset()").execute(db).await?;
    Ok(())
}

/// Prints the time of each database, and of the statements that took longest, since the reset. Waits for locks are part of it.
pub(super) async fn print(db: &mut PgConnection, orders: usize) -> Result<()> {
    let databases: Vec<(String, f64, f64)> = sqlx::query_as(
        "select datname, sum(total_exec_time + total_plan_time), sum(calls)::float8
         from pg_stat_statements join pg_database on oid = dbid
         where datname like 'souk_%' group by datname order by 2 desc",
    )
    .fetch_all(&mut *db)
    .await?;
    let statements: Vec<(String, f64, f64, f64, String)> = sqlx::query_as(
        "select datname, total_exec_time, total_plan_time, calls::float8, left(regexp_replace(query, '\\s+', ' ', 'g'), 110)
         from pg_stat_statements join pg_database on oid = dbid
         where datname like 'souk_%' order by total_exec_time + total_plan_time desc limit $1",
    )
    .bind(MOST)
    .fetch_all(&mut *db)
    .await?;
    let orders = orders as f64;
    println!("time in Postgres per order, waits for locks among it:");
    for (database, ms, calls) in databases {
        println!("  {database:18} {:6.2} ms in {:5.1} statements", ms / orders, calls / orders);
    }
    for (database, exec, plan, calls, query) in statements {
        println!(
            "  {database:18} {:6.2} ms + {:.2} planned, {:5.2} times: {query}",
            exec / orders,
            plan / orders,
            calls / orders
        );
    }
    Ok(())
}
