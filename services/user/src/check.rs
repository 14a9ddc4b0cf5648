//! What `souk check` must know of accounts.

use std::collections::HashSet;

use chassis::Unexpected;
use sqlx::PgPool;

/// The hashes of all refresh tokens, by which one is known wherever it stands.
pub async fn refresh_hashes(db: &PgPool) -> Result<HashSet<Vec<u8>>, Unexpected> {
    Ok(sqlx::query_scalar!("select refresh_hash from session").fetch_all(db).await?.into_iter().collect())
}
