//! The aggregate: what a session is, how long it lasts, and how its refresh tokens are stored.

use std::time::Duration;

use chassis::{Id, Owner, Unexpected, timestamp};
use contracts::souk::user::v1 as proto;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::account::{Role, UserId};
use crate::refresh_token::RefreshToken;

pub(crate) type SessionId = Id<Session>;

/// For how long a used refresh token is answered with the same successor.
pub(crate) const REPEATABLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub(crate) session_id: SessionId,
    pub(crate) user_id: UserId,
    pub(crate) device: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) used_at: OffsetDateTime,
}

/// How long sessions last, and how many a user has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Since a session was last used.
    pub(crate) idle: Duration,
    /// Since it was created.
    pub(crate) lifetime: Duration,
    pub(crate) per_user: u16,
}

impl Limits {
    /// When a session ends if it is not used again.
    pub(crate) fn end_of(&self, session: &Session) -> OffsetDateTime {
        (session.created_at + self.lifetime).min(session.used_at + self.idle)
    }
}

/// What refreshing needs to know of a session.
pub(crate) struct Family {
    pub(crate) session: Session,
    pub(crate) role: Role,
    /// Of the token that is valid.
    pub(crate) refresh_hash: Vec<u8>,
}

impl Session {
    pub(crate) async fn insert(&self, db: &mut PgConnection, token: &RefreshToken) -> Result<(), Unexpected> {
        sqlx::query!(
            "insert into session (session_id, user_id, family_hash, refresh_hash, device, created_at, used_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
            self.session_id as SessionId,
            self.user_id as UserId,
            token.family_hash(),
            token.hash(),
            self.device,
            self.created_at,
            self.used_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// The session to whose family the token belongs. Until the transaction ends, no other call exchanges its tokens.
    pub(crate) async fn lock_family(db: &mut PgConnection, token: &RefreshToken) -> Result<Option<Family>, Unexpected> {
        let row = sqlx::query!(
            r#"select session_id as "session_id: SessionId", user_id as "user_id: UserId", device, session.created_at,
                 used_at, refresh_hash, role as "role: Role"
               from session join account using (user_id) where family_hash = $1 for no key update of session"#,
            token.family_hash(),
        );
        Ok(row.fetch_optional(db).await?.map(|row| Family {
            session: Self {
                session_id: row.session_id,
                user_id: row.user_id,
                device: row.device,
                created_at: row.created_at,
                used_at: row.used_at,
            },
            role: row.role,
            refresh_hash: row.refresh_hash,
        }))
    }

    /// Ownership is in the query: somebody else's session is not there.
    pub(crate) async fn lock(
        db: &mut PgConnection,
        session_id: SessionId,
        owner: Owner,
    ) -> Result<Option<SessionId>, Unexpected> {
        let found = sqlx::query_scalar!(
            r#"select session_id as "session_id: SessionId" from session
               where session_id = $1 and ($2::uuid is null or user_id = $2) for update"#,
            session_id as SessionId,
            owner.filter(),
        );
        Ok(found.fetch_optional(db).await?)
    }

    /// Exchanges `used`, the valid token, for `successor`. Used tokens that are not answered any more are deleted.
    pub(crate) async fn rotate(
        &mut self,
        db: &mut PgConnection,
        used: &RefreshToken,
        successor: &RefreshToken,
        now: OffsetDateTime,
    ) -> Result<(), Unexpected> {
        self.used_at = now;
        sqlx::query!(
            "with used as (
               insert into session_used (token_hash, session_id, sealed_successor, used_at) values ($2, $1, $3, $4)
             ), forgotten as (
               delete from session_used where session_id = $1 and used_at <= $5
             )
             update session set refresh_hash = $6, used_at = $4 where session_id = $1",
            self.session_id as SessionId,
            used.hash(),
            used.seal(successor)?,
            now,
            now - REPEATABLE,
            successor.hash(),
        )
        .execute(db)
        .await?;
        Ok(())
    }

    /// The successor of a token that was used a moment ago.
    pub(crate) async fn find_successor(
        &self,
        db: &mut PgConnection,
        used: &RefreshToken,
        now: OffsetDateTime,
    ) -> Result<Option<RefreshToken>, Unexpected> {
        let sealed = sqlx::query_scalar!(
            "select sealed_successor from session_used where token_hash = $1 and session_id = $2 and used_at > $3",
            used.hash(),
            self.session_id as SessionId,
            now - REPEATABLE,
        );
        Ok(sealed.fetch_optional(db).await?.and_then(|sealed| used.unseal(&sealed)))
    }

    pub(crate) fn to_proto(&self, limits: &Limits, current: Option<SessionId>) -> proto::Session {
        proto::Session {
            session_id: self.session_id.to_string(),
            create_time: Some(timestamp(self.created_at)),
            last_use_time: Some(timestamp(self.used_at)),
            expire_time: Some(timestamp(limits.end_of(self))),
            device: self.device.clone(),
            current: current == Some(self.session_id),
        }
    }
}

/// The sessions of a user beyond the `keep` that were used last.
pub(crate) async fn least_used(
    db: &mut PgConnection,
    user_id: UserId,
    keep: i64,
) -> Result<Vec<SessionId>, Unexpected> {
    let ids = sqlx::query_scalar!(
        r#"select session_id as "session_id: SessionId" from session where user_id = $1
           order by used_at desc, session_id desc offset $2"#,
        user_id as UserId,
        keep,
    );
    Ok(ids.fetch_all(db).await?)
}
