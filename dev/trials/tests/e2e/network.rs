//! Postgres lets nobody in without TLS and a password, and roles accept no Postgres with another authority's certificate.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};
use stack::pki::Authority;

use crate::shared;

/// The server's refusal of an authentication, and of a connection that no line of `pg_hba.conf` allows.
const WRONG_PASSWORD: &str = "28P01";
const NOT_ALLOWED: &str = "28000";

async fn refusal(options: PgConnectOptions) -> Result<sqlx::Error> {
    PgConnection::connect_with(&options).await.err().context("the connection is accepted")
}

#[test]
fn postgres_asks_for_tls_and_a_password() -> Result<()> {
    shared(async |stack| {
        let own = PgConnectOptions::from_str(&stack.layout.database("souk_order", "souk_order")?)?;
        PgConnection::connect_with(&own).await.context("with both")?.close().await?;
        for (options, code) in [
            (own.clone().ssl_mode(PgSslMode::Disable), NOT_ALLOWED),
            (own.clone().password("another"), WRONG_PASSWORD),
            // Of another service.
            (own.clone().username("souk_payment"), WRONG_PASSWORD),
        ] {
            let refused = refusal(options).await?;
            let found = refused.as_database_error().and_then(|error| error.code());
            ensure!(found.as_deref() == Some(code), "{refused}");
        }
        Ok(())
    })
}

#[test]
fn another_authority_is_not_trusted() -> Result<()> {
    shared(async |stack| {
        let folder = std::env::temp_dir().join(format!("souk-authority-{}", uuid::Uuid::now_v7()));
        drop(Authority::open(&folder)?);
        let own = PgConnectOptions::from_str(&stack.layout.database("souk_order", "souk_order")?)?;
        let refused = refusal(own.ssl_root_cert(folder.join("ca.crt"))).await?;
        std::fs::remove_dir_all(&folder)?;
        ensure!(format!("{refused:?}").contains("InvalidCertificate(BadSignature"), "{refused:?}");
        Ok(())
    })
}
