//! The database role of a service has only the privileges that the service needs: it cannot change append-only tables, create
//! tables, or connect to another database.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::shared;

const DENIED: &str = "42501";

fn is_denied<T>(outcome: Result<T, sqlx::Error>) -> Result<()> {
    let error = outcome.err().context("it is allowed")?;
    let code = error.as_database_error().and_then(|error| error.code());
    ensure!(code.as_deref() == Some(DENIED), "{error}");
    Ok(())
}

#[test]
fn a_role_rewrites_no_history_and_sees_no_other_database() -> Result<()> {
    shared(async |stack| {
        let own = |service: &str| stack.layout.database(&format!("souk_{service}"), &format!("souk_{service}"));
        let mut order = PgConnection::connect(&own("order")?).await?;
        let mut payment = PgConnection::connect(&own("payment")?).await?;
        for change in ["update order_event set type = 'x'", "delete from order_event", "create table x (y int)"] {
            is_denied(sqlx::query(change).execute(&mut order).await).context(change)?;
        }
        for change in ["update ledger_transfer set minor = 1", "delete from ledger_transfer"] {
            is_denied(sqlx::query(change).execute(&mut payment).await).context(change)?;
        }
        for (service, other) in [("order", "souk_payment"), ("payment", "souk_order"), ("user", "souk_order")] {
            let options = PgConnectOptions::from_str(&own(service)?)?.database(other);
            is_denied(PgConnection::connect_with(&options).await).with_context(|| format!("{service} in {other}"))?;
        }
        Ok(())
    })
}
