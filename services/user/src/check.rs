//! What `souk check` needs from accounts.

use std::collections::HashSet;

use chassis::Unexpected;
use futures_util::TryStreamExt;
use sqlx::PgPool;
use uuid::Uuid;

/// The first bytes of the hashes of all refresh tokens: enough to recognise a token wherever it is, and few to keep in memory.
pub async fn refresh_hashes(db: &PgPool) -> Result<HashSet<[u8; 8]>, Unexpected> {
    let hashes = sqlx::query_scalar!(
        r#"select substring(refresh_hash for 8) as "hash!" from session
           union all select substring(token_hash for 8) from session_used"#,
    );
    let (mut begins, mut hashes) = (HashSet::new(), hashes.fetch(db));
    while let Some(hash) = hashes.try_next().await? {
        let short = |hash: Vec<u8>| Unexpected::Broken(format!("a refresh token has a hash of {} bytes", hash.len()));
        begins.insert(hash.try_into().map_err(short)?);
    }
    Ok(begins)
}

/// How many events accounts have published: the first of those behind `after`, in the order of their ids.
pub async fn versions(db: &PgPool, after: Uuid, limit: i64) -> Result<Vec<(Uuid, i64)>, Unexpected> {
    let rows = sqlx::query!(
        r#"select user_id as "user_id!", event_version as "version!" from
             (select user_id, event_version from account where user_id > $1
              union all select user_id, event_version from erased_account where user_id > $1) as it
           where event_version > 0 order by user_id limit $2"#,
        after,
        limit,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.user_id, row.version)).collect())
}
