//! An account: its row, and how it looks to callers.

use chassis::rpc::update::etag;
use chassis::{Owner, timestamp};
use contracts::souk::user::v1 as proto;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Account {
    pub(crate) user_id: Uuid,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) role: String,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// Parses the id of an account; `me` is whoever asks.
pub(crate) fn parse_id(text: &str, caller: &chassis::Caller) -> Result<Uuid, Error> {
    if text == "me" {
        return Ok(caller.user_id()?);
    }
    Uuid::parse_str(text).map_err(|_| Error::UserNotFound)
}

impl Account {
    /// Customers are inserted by RegisterUser, operators by the administrator's command.
    pub(crate) async fn insert(&self, db: &mut PgConnection, password_hash: &str) -> Result<(), Error> {
        sqlx::query!(
            "insert into account (user_id, email, password_hash, display_name, role, version, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            self.user_id,
            self.email,
            password_hash,
            self.display_name,
            self.role,
            self.version,
            self.created_at,
            self.updated_at,
        )
        .execute(db)
        .await
        .map_err(chassis::rpc::error::on_constraint("account_email", Error::EmailTaken))?;
        Ok(())
    }

    /// Ownership is in the query: somebody else's account is not there.
    pub(crate) async fn find(db: &mut PgConnection, user_id: Uuid, owner: Owner) -> Result<Option<Self>, Error> {
        let account = sqlx::query_as!(
            Self,
            "select user_id, email, display_name, role, version, created_at, updated_at
             from account where user_id = $1 and ($2::uuid is null or user_id = $2)",
            user_id,
            owner.filter(),
        )
        .fetch_optional(db)
        .await?;
        Ok(account)
    }

    pub(crate) async fn lock(db: &mut PgConnection, user_id: Uuid, owner: Owner) -> Result<Option<Self>, Error> {
        let account = sqlx::query_as!(
            Self,
            "select user_id, email, display_name, role, version, created_at, updated_at
             from account where user_id = $1 and ($2::uuid is null or user_id = $2) for update",
            user_id,
            owner.filter(),
        )
        .fetch_optional(db)
        .await?;
        Ok(account)
    }

    pub(crate) async fn save(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Error> {
        self.version += 1;
        self.updated_at = now;
        sqlx::query!(
            "update account set display_name = $2, version = $3, updated_at = $4 where user_id = $1",
            self.user_id,
            self.display_name,
            self.version,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn to_proto(&self) -> proto::User {
        let role = if self.role == "OPERATOR" { proto::Role::Operator } else { proto::Role::Customer };
        proto::User {
            user_id: self.user_id.to_string(),
            email: self.email.clone(),
            display_name: self.display_name.clone(),
            role: role.into(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            etag: etag(self.version),
        }
    }
}
