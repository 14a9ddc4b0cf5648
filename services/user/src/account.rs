//! The aggregate: what an account is, and how it is loaded and saved.

use chassis::rpc::token::RoleClaim;
use chassis::rpc::update::etag;
use chassis::{Caller, Id, Owner, Unexpected, timestamp};
use contracts::souk::user::v1 as proto;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Error;
use crate::mail::{self, Purpose};

pub(crate) type UserId = Id<Account>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Account {
    pub(crate) user_id: UserId,
    pub(crate) email: String,
    pub(crate) display_name: String,
    /// In the format of E.164.
    pub(crate) phone: Option<String>,
    /// Of its texts; None: that of the shop.
    pub(crate) language_code: Option<String>,
    pub(crate) role: Role,
    pub(crate) version: i64,
    pub(crate) disabled_at: Option<OffsetDateTime>,
    /// How often its password was replaced.
    pub(crate) password_version: i64,
    /// When its owner last proved that the address is theirs.
    pub(crate) verified_at: Option<OffsetDateTime>,
    /// When a mail server refused a mail to the address for good.
    pub(crate) email_refused_at: Option<OffsetDateTime>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Role {
    Customer,
    Operator,
}

impl Role {
    /// Such as `OPERATOR`, in the table and in the contract.
    pub(crate) fn name(self) -> &'static str {
        self.to_proto().as_str_name().trim_start_matches("ROLE_")
    }

    /// In access tokens.
    pub(crate) fn to_claim(self) -> RoleClaim {
        match self {
            Self::Customer => RoleClaim::Customer,
            Self::Operator => RoleClaim::Operator,
        }
    }

    fn to_proto(self) -> proto::Role {
        match self {
            Self::Customer => proto::Role::Customer,
            Self::Operator => proto::Role::Operator,
        }
    }
}

/// Parses the id of an account; `me` is the caller's own.
pub(crate) fn parse_id(text: &str, caller: &Caller) -> Result<UserId, Error> {
    if text == "me" {
        return Ok(UserId::new(caller.user_id()?));
    }
    UserId::parse(text).ok_or(Error::UserNotFound)
}

/// What a password is verified against.
pub(crate) struct KnownPassword {
    pub(crate) hash: String,
    /// See [`Account::password_version`].
    pub(crate) version: i64,
    pub(crate) email: String,
    pub(crate) display_name: String,
}

pub(crate) async fn find_password(
    db: &mut PgConnection,
    user_id: UserId,
    owner: Owner,
) -> Result<Option<KnownPassword>, Unexpected> {
    let password = sqlx::query_as!(
        KnownPassword,
        "select password_hash as hash, password_version as version, email, display_name
         from account where user_id = $1 and ($2::uuid is null or user_id = $2)",
        user_id as UserId,
        owner.filter(),
    );
    Ok(password.fetch_optional(db).await?)
}

impl Account {
    /// A new account of a customer or an operator.
    pub(crate) fn new(user_id: UserId, email: String, display_name: String, role: Role, now: OffsetDateTime) -> Self {
        Self {
            user_id,
            email,
            display_name,
            phone: None,
            language_code: None,
            role,
            version: 1,
            disabled_at: None,
            password_version: 1,
            verified_at: None,
            email_refused_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Customers are inserted by RegisterUser, operators by the administrator's command.
    pub(crate) async fn insert(&self, db: &mut PgConnection, password_hash: &str) -> Result<(), Unexpected> {
        sqlx::query!(
            "insert into account (user_id, email, password_hash, display_name, language_code, role, version, created_at, updated_at)
             values ($1, $2, $3, $4, $9, $5, $6, $7, $8)",
            self.user_id as UserId,
            self.email,
            password_hash,
            self.display_name,
            self.role.name(),
            self.version,
            self.created_at,
            self.updated_at,
            self.language_code,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Ownership is in the query: somebody else's account is not there.
    pub(crate) async fn find(db: &mut PgConnection, user_id: UserId, owner: Owner) -> Result<Option<Self>, Unexpected> {
        let account = sqlx::query_as!(
            Self,
            r#"select user_id as "user_id: _", email, display_name, phone, language_code, role as "role: _", version,
                 disabled_at, password_version, verified_at, email_refused_at, created_at, updated_at
               from account where user_id = $1 and ($2::uuid is null or user_id = $2)"#,
            user_id as UserId,
            owner.filter(),
        );
        Ok(account.fetch_optional(db).await?)
    }

    pub(crate) async fn lock(db: &mut PgConnection, user_id: UserId, owner: Owner) -> Result<Option<Self>, Unexpected> {
        let account = sqlx::query_as!(
            Self,
            r#"select user_id as "user_id: _", email, display_name, phone, language_code, role as "role: _", version,
                 disabled_at, password_version, verified_at, email_refused_at, created_at, updated_at
               from account where user_id = $1 and ($2::uuid is null or user_id = $2) for update"#,
            user_id as UserId,
            owner.filter(),
        );
        Ok(account.fetch_optional(db).await?)
    }

    pub(crate) async fn save(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Unexpected> {
        self.version += 1;
        self.updated_at = now;
        sqlx::query!(
            "update account set display_name = $2, phone = $7, language_code = $8, version = $3, disabled_at = $4,
               verified_at = $5, email_refused_at = $9, updated_at = $6
             where user_id = $1",
            self.user_id as UserId,
            self.display_name,
            self.version,
            self.disabled_at,
            self.verified_at,
            self.updated_at,
            self.phone,
            self.language_code,
            self.email_refused_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// Replaces the password: a login that has verified the former one is refused from now on, and links to reset it end.
    pub(crate) async fn set_password(
        &mut self,
        db: &mut PgConnection,
        password_hash: &str,
        now: OffsetDateTime,
    ) -> Result<(), Unexpected> {
        self.password_version += 1;
        sqlx::query!(
            "update account set password_hash = $2, password_version = $3 where user_id = $1",
            self.user_id as UserId,
            password_hash,
            self.password_version,
        )
        .execute(&mut *db)
        .await?;
        mail::end(db, self.user_id, Purpose::ResetPassword, now).await
    }

    /// Records that the address is its owner's, and gets mails. What a mail server refused before says nothing any more, even if it is
    /// reported later.
    pub(crate) async fn verify(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Unexpected> {
        self.verified_at = Some(now);
        self.email_refused_at = None;
        self.save(db, now).await
    }

    /// Deletes the row and all that belongs to it; what stays is how many events there are.
    pub(crate) async fn erase(
        &self,
        db: &mut PgConnection,
        event_version: i64,
        now: OffsetDateTime,
    ) -> Result<(), Unexpected> {
        sqlx::query!(
            "with gone as (delete from account where user_id = $1)
             insert into erased_account (user_id, event_version, erased_at) values ($1, $2, $3)",
            self.user_id as UserId,
            event_version,
            now,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn to_proto(&self) -> proto::User {
        proto::User {
            user_id: self.user_id.to_string(),
            email: self.email.clone(),
            display_name: self.display_name.clone(),
            phone: self.phone.clone().unwrap_or_default(),
            language_code: self.language_code.clone().unwrap_or_default(),
            role: self.role.to_proto().into(),
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            etag: etag(self.version),
            disable_time: self.disabled_at.map(timestamp),
            email_verify_time: self.verified_at.map(timestamp),
            email_refuse_time: self.email_refused_at.map(timestamp),
        }
    }
}
