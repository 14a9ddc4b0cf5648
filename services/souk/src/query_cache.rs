//! Tests that `.sqlx` matches the migrations. Every offline build fails if a query is missing from it.

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};

use crate::roles::SCHEMAS;

#[sqlx::test(migrations = false)]
async fn the_query_cache_is_fresh(_: PgPoolOptions, database: PgConnectOptions) {
    let mut services = Vec::new();
    for service in SCHEMAS {
        // A schema per service instead of a database. Its name has a suffix, as some tables are named like their service.
        let name = format!("{}_service", service.service);
        let options = database.clone().options([("search_path", &name)]);
        let mut db = PgConnection::connect_with(&options).await.expect("Postgres is there");
        db.execute(AssertSqlSafe(format!("create schema {name}"))).await.expect("a schema");
        service.migrator.run_direct(None, &mut db, false).await.expect("the migrations apply");
        services.push(db);
    }
    let mut checked = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.sqlx")).expect("the cache is there") {
        let text = std::fs::read(file.expect("an entry").path()).expect("a file");
        let cached: Value = serde_json::from_slice(&text).expect("JSON");
        let sql = cached["query"].as_str().expect("a query").to_owned();
        let mut answers = Vec::new();
        for db in &mut services {
            let described = db.describe(AssertSqlSafe(sql.clone()).into_sql_str()).await;
            answers.push(
                described.map(|it| shape(&serde_json::to_value(it).expect("plain data"))).map_err(|it| it.to_string()),
            );
        }
        assert!(answers.contains(&Ok(shape(&cached["describe"]))), "stale, run `make prepare`: {sql}\n{answers:#?}");
        checked += 1;
    }
    assert!(checked > 50, "the cache has {checked} queries");
}

/// Columns and parameters. Nullability is left out: sqlx derives it from the plan of outer joins, which depends on how full
/// the tables are.
fn shape(described: &Value) -> Value {
    json!({ "columns": described["columns"], "parameters": described["parameters"] })
}
