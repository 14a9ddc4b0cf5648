use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::key_file;
use crate::{Config, create_operator};

fn config(url: &str) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: url.parse().expect("any text"),
        database_connections: 2,
        signing_key_files: vec![key_file()],
        password_slots: 1,
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_operator_is_made_once(_: PgPoolOptions, options: sqlx::postgres::PgConnectOptions) {
    let url = sqlx::ConnectOptions::to_url_lossy(&options).to_string();
    let file = std::env::temp_dir().join(format!("souk-password-{}", uuid::Uuid::now_v7()));
    std::fs::write(&file, "correct horse battery\n").expect("written");
    let first = create_operator(&config(&url), "Op@Example.com", &file).await.expect("created");
    assert_eq!(first, "the operator op@example.com was created");
    let again = create_operator(&config(&url), "op@example.com", &file).await.expect("there");
    assert!(again.contains("exists"), "{again}");
    let db = PgPool::connect_with(options).await.expect("the database is there");
    let role = sqlx::query_scalar!("select role from account").fetch_one(&db).await.expect("one account");
    assert_eq!(role, "OPERATOR");
}

#[tokio::test]
async fn a_short_password_is_refused() {
    let file = std::env::temp_dir().join(format!("souk-short-{}", uuid::Uuid::now_v7()));
    std::fs::write(&file, "short").expect("written");
    let refused = create_operator(&config("postgres://127.0.0.1:1/x"), "op@example.com", &file).await;
    assert!(refused.expect_err("too short").contains("15 characters"));
}
