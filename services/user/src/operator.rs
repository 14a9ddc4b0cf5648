//! The administrator's command that makes the first operator.

use std::path::Path;

use chassis::Clock;
use chassis::rpc::DEFAULT_DEADLINE;
use contracts::email;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::Config;
use crate::account::Account;
use crate::error::Error;
use crate::password::{self, Passwords};

#[derive(Debug, thiserror::Error)]
pub enum CreateOperatorError {
    /// What was given cannot be right; it says which option or variable that is.
    #[error("{0}")]
    Given(String),
    #[error("{0}")]
    Failed(String),
}

/// Makes an operator's account, or finds it there: its password then stays as it is. Says what it did.
pub async fn create_operator(
    config: &Config,
    email: &str,
    password_file: &Path,
) -> Result<String, CreateOperatorError> {
    use CreateOperatorError::{Failed, Given};
    let read = std::fs::read_to_string(password_file);
    let text = read.map_err(|error| Given(format!("--password-file {}: {error}", password_file.display())))?;
    let password = text.lines().next().unwrap_or_default();
    let password = password::prepare(password).map_err(|why| Given(format!("--password-file: {why}")))?;
    let email = email::normalize(email).map_err(|why| Given(format!("--email: `{email}` {why}")))?;
    let db = config.pool().map_err(Given)?;
    match create(&db, &email, password).await.map_err(|error| Failed(error.to_string()))?.as_deref() {
        None => Ok(format!("the operator {email} was created")),
        Some("OPERATOR") => Ok(format!("the operator {email} exists; the password was left as it is")),
        Some(role) => Err(Given(format!("--email: the account {email} exists as {role}; it was left as it is"))),
    }
}

/// The role of the account that was there already, if any.
async fn create(db: &PgPool, email: &str, password: String) -> Result<Option<String>, Error> {
    let password_hash = Passwords::new(1).hash(password, Instant::now() + DEFAULT_DEADLINE).await?;
    let (clock, mut tx) = (Clock::System, db.begin().await?);
    let role = sqlx::query_scalar!("select role from account where email = $1", email).fetch_optional(&mut *tx).await?;
    if role.is_some() {
        return Ok(role);
    }
    let now = clock.now();
    let account = Account {
        user_id: clock.new_id(),
        email: email.to_owned(),
        display_name: "Operator".to_owned(),
        role: "OPERATOR".to_owned(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    account.insert(&mut tx, &password_hash).await?;
    tx.commit().await?;
    Ok(None)
}
