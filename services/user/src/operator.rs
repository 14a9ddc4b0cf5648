//! The administrator's command that makes the first operator.

use std::path::Path;

use chassis::Clock;
use chassis::boot::config::first_line;
use chassis::rpc::DEFAULT_DEADLINE;
use chassis::rpc::error::on_constraint;
use contracts::email;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::Config;
use crate::account::{Account, Role, UserId};
use crate::error::Error;
use crate::password::{NewPassword, Passwords};

#[derive(Debug, thiserror::Error)]
pub enum CreateOperatorError {
    /// An option or a variable is invalid; the text names it.
    #[error("{0}")]
    Given(String),
    #[error("{0}")]
    Failed(String),
}

/// Creates an operator's account, unless it exists: then its password is not changed. Returns a line for the administrator.
pub async fn create_operator(
    config: &Config,
    email: &str,
    password_file: &Path,
) -> Result<String, CreateOperatorError> {
    use CreateOperatorError::{Failed, Given};
    let password = first_line(password_file).map_err(|why| Given(format!("--password-file: {why}")))?;
    let password = NewPassword::parse(&password, "--password-file").map_err(|why| Given(why.to_string()))?;
    let email = email::normalize(email).map_err(|why| Given(format!("--email: `{email}` {why}")))?;
    let db = config.foundation.pool(roster::USER).map_err(Given)?;
    let created = create(&db, &email, password).await.map_err(|error| match error {
        Error::PasswordCommon { field } => Given(format!("{field}: {error}")),
        error => Failed(error.to_string()),
    });
    match created? {
        None => Ok(format!("the operator {email} was created")),
        Some(Role::Operator) => Ok(format!("the operator {email} exists; the password was left as it is")),
        Some(role) => {
            Err(Given(format!("--email: the account {email} exists as {}; it was left as it is", role.name())))
        }
    }
}

/// The role of the account that exists already, if one does.
async fn create(db: &PgPool, email: &str, password: NewPassword) -> Result<Option<Role>, Error> {
    let password_hash = Passwords::new(1).hash_new(password.of(email, ""), Instant::now() + DEFAULT_DEADLINE).await?;
    let (clock, mut tx) = (Clock::System, db.begin().await?);
    let role = sqlx::query_scalar!(r#"select role as "role: Role" from account where email = $1"#, email);
    if let Some(role) = role.fetch_optional(&mut *tx).await? {
        return Ok(Some(role));
    }
    let (user_id, name) = (UserId::new(clock.new_id()), "Operator".to_owned());
    let account = Account::new(user_id, email.to_owned(), name, Role::Operator, clock.now());
    let inserted = account.insert(&mut tx, &password_hash).await;
    inserted.map_err(on_constraint("account_email", Error::EmailTaken))?;
    tx.commit().await?;
    Ok(None)
}
