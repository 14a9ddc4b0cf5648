//! The program does not start with an invalid setting, and its message names the setting.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A process that still runs after this time has accepted its settings.
const PATIENCE: Duration = Duration::from_secs(60);

const BAD: &[(&[&str], &str, &str)] = &[
    (&["all"], "SOUK_USER_URL", "nonsense"),
    (&["all"], "SOUK_ADMIN_LISTEN", "here"),
    (&["all"], "SOUK_LOG_FORMAT", "xml"),
    (&["all"], "SOUK_DRAIN", "5"),
    (&["gateway"], "GATEWAY_LISTEN", "here"),
    (&["gateway"], "SOUK_TLS_MODE", "plain"),
    (&["gateway"], "SOUK_TLS_MESH_PREFIX", "cluster.local/ns/souk"),
    (&["gateway"], "SOUK_TLS_DIRECTORY", "/nowhere"),
    (&["gateway"], "SOUK_TLS_CALLERS", "dev,a b"),
    (&["user"], "USER_LISTEN", "localhost:9002"),
    (&["user"], "USER_DATABASE_CONNECTIONS", "0"),
    (&["user"], "USER_PASSWORD_SLOTS", "0"),
    (&["user"], "USER_PASSWORD_SLOTS", "65"),
    (&["user"], "USER_RESET_PAGE", "nonsense"),
    (&["user"], "USER_PRINT_LINKS", "perhaps"),
    (&["user"], "USER_SESSION_IDLE", "5s"),
    (&["user"], "USER_SESSION_LIFETIME", "4000d"),
    (&["user"], "USER_SESSIONS_PER_USER", "0"),
    (&["user"], "USER_SIGNING_KEY_FOLDER", "/nowhere"),
    (&["product"], "PRODUCT_LISTEN", "127.0.0.1"),
    (&["product"], "PRODUCT_DATABASE_URL", "nonsense"),
    (&["product"], "PRODUCT_DATABASE_CONNECTIONS", "0"),
    (&["product"], "PRODUCT_INVENTORY_URL", "127.0.0.1:9004"),
    (&["inventory"], "INVENTORY_DATABASE_CONNECTIONS", "0"),
    (&["inventory"], "INVENTORY_ORDER_URL", "127.0.0.1:9005"),
    (&["order"], "ORDER_DATABASE_CONNECTIONS", "0"),
    (&["order"], "ORDER_PRODUCT_URL", "127.0.0.1:9003"),
    (&["order"], "ORDER_PRODUCT_URL", "https://product"),
    (&["order"], "ORDER_DATABASE_PASSWORD_FILE", "/nowhere/password"),
    (&["payment"], "PAYMENT_DATABASE_CONNECTIONS", "0"),
    (&["payment"], "PAYMENT_WORKERS", "0"),
    (&["payment"], "PAYMENT_WORKERS", "257"),
    (&["notification"], "NOTIFICATION_SMTP_SENDER", "nobody"),
    (&["notification"], "NOTIFICATION_SMTP_SECURITY", "none"),
    (&["notification"], "NOTIFICATION_SMS_URL", "http://sms.example.com"),
    (&["notification"], "NOTIFICATION_LANGUAGE", "fr"),
    (&["notification"], "NOTIFICATION_WORKERS", "17"),
    (&["analytics"], "ANALYTICS_TIME_ZONE", "Berlin"),
    (&["health", "order"], "ORDER_LISTEN", "here"),
    (&["health", "order"], "SOUK_TLS_DIRECTORY", "/nowhere"),
    (&["migrate"], "SOUK_MIGRATE_DATABASE_URL", "nonsense"),
    (&["migrate"], "SOUK_MIGRATE_DATABASE_PASSWORD_FILE", "/nowhere/password"),
    (&["migrate"], "USER_DATABASE_PASSWORD_FILE", "/nowhere/password"),
    (&["check"], "USER_DATABASE_PASSWORD_FILE", "/nowhere/password"),
    (&["migrate"], "SOUK_KAFKA_REPLICATION", "0"),
    (&["migrate"], "ORDER_DATABASE_URL", "postgres://souk_order@127.0.0.1/souk_order?password=x"),
    (&["check"], "ORDER_DATABASE_URL", "nonsense"),
    (&["check"], "SOUK_CHECK_STATEMENT_TIMEOUT", "5"),
    (&["check"], "PAYMENT_PROVIDER_RATE", "0"),
    (&["check"], "SOUK_CHECK_PROVIDER_URL", "http://provider.example.com"),
    // The URL of a real provider needs a key.
    (&["check"], "SOUK_CHECK_PROVIDER_URL", "https://provider.example.com"),
    (&["gateway"], "SOUK_REDIS_URL", "redis://redis:6379"),
    (&["gateway"], "SOUK_REDIS_PASSWORD_FILE", "/nowhere/password"),
    (&["gateway"], "SOUK_LIMIT_ACCOUNT_WINDOW", "1ms"),
    (&["envoy"], "EDGE_LISTEN", "0.0.0.0:8080"),
    (&["envoy"], "EDGE_ADMIN_LISTEN", "0.0.0.0:19901"),
    (&["envoy"], "EDGE_TRUSTED_HOPS", "11"),
    (&["envoy"], "EDGE_MAX_HEAP", "1"),
    (&["envoy"], "EDGE_TIMEOUT", "6s"),
    (&["envoy"], "EDGE_MAX_BODY", "0"),
    (&["envoy"], "SOUK_LIMIT_READ_RATE", "0"),
    (&["envoy"], "EDGE_ORDER_ENDPOINTS", "http://order:9005"),
    (&["envoy"], "EDGE_USER_ENDPOINTS", "a:80, b:80"),
    (&["envoy"], "EDGE_OTLP_ENDPOINT", "collector"),
];

async fn souk(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
    command.args(arguments).env_clear().envs(settings.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.unwrap_or_else(|_| panic!("{settings:?} was accepted")).expect("the program can be run")
}

fn assert_names(output: &Output, name: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{name}: {said}");
    assert!(said.contains(name), "{name}: {said}");
}

#[tokio::test]
async fn a_bad_setting_is_named() {
    for (arguments, name, value) in BAD {
        assert_names(&souk(arguments, &[(name, value)]).await, name);
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_both_named() {
    let both = ["PAYMENT_RECONCILE_RATE", "PAYMENT_PROVIDER_RATE"];
    for settings in [&[(both[0], "26")][..], &[(both[1], "4")], &[(both[0], "101"), (both[1], "100")]] {
        let output = souk(&["payment"], settings).await;
        both.iter().for_each(|name| assert_names(&output, name));
    }
}

#[tokio::test]
async fn an_operator_is_not_created_from_invalid_input() {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("souk-password-{}", std::process::id()));
    std::fs::write(&file, "a long enough password\n").expect("the folder for temporary files");
    let file_name = file.to_str().expect("UTF-8");
    let create = |email, file| ["user", "create-operator", "--email", email, "--password-file", file];
    assert_names(&souk(&create("op", file_name), &[]).await, "--email");
    assert_names(&souk(&create("op@example.com", "/nowhere/password"), &[]).await, "--password-file");
    let bad = [("USER_DATABASE_URL", "nonsense")];
    assert_names(&souk(&create("op@example.com", file_name), &bad).await, "USER_DATABASE_URL");
    std::fs::remove_file(&file).expect("it is ours");
}
