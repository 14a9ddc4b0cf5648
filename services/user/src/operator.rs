//! The administrator's command that makes the first operator.

use std::path::Path;

use chassis::{Clock, Unexpected};

use crate::Config;
use crate::account::Account;
use crate::error::Error;
use crate::password::Passwords;

/// Makes an operator's account, or finds it there: its password then stays as it is. Says what it did.
pub async fn create_operator(config: &Config, email: &str, password_file: &Path) -> Result<String, String> {
    let read = std::fs::read_to_string(password_file);
    let text = read.map_err(|error| format!("--password-file {}: {error}", password_file.display()))?;
    let password = text.lines().next().unwrap_or_default();
    if password.chars().count() < 15 {
        return Err("--password-file: a password has at least 15 characters".to_owned());
    }
    let email = email.to_lowercase();
    if !email.contains('@') {
        return Err(format!("--email: `{email}` is not an e-mail address"));
    }
    create(config, &email, password).await.map_err(|error| error.to_string())
}

async fn create(config: &Config, email: &str, password: &str) -> Result<String, Error> {
    let pool = config.pool().map_err(|error| chassis::Error::from(Unexpected::Broken(error)))?;
    let password_hash = Passwords::new(1).hash(password.to_owned()).await?;
    let (clock, mut tx) = (Clock::System, pool.begin().await?);
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
    let exists = sqlx::query_scalar!("select role from account where email = $1", email);
    match exists.fetch_optional(&mut *tx).await?.as_deref() {
        Some("OPERATOR") => Ok(format!("the operator {email} exists; the password was left as it is")),
        Some(_) => Err(Error::EmailTaken),
        None => {
            account.insert(&mut tx, &password_hash).await?;
            tx.commit().await?;
            Ok(format!("the operator {email} was created"))
        }
    }
}
