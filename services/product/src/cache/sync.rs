//! Copies changes from the database to Redis, so that none is missed: a replica may have stopped right after its transaction, Redis
//! may have been away, and the previous release writes nothing to Redis.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chassis::boot::metrics;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::gauge::Gauge;
use time::OffsetDateTime;

use super::redis::Shared;
use crate::product::ProductId;
use crate::service::Service;

pub(crate) const SYNC_EVERY: Duration = Duration::from_millis(300);
/// A transaction commits within this time after it has taken the time of its change: its statements and pauses are bounded.
const COMMITS_WITHIN: Duration = Duration::from_secs(15);

static FULL: LazyLock<Gauge> = LazyLock::new(|| {
    let help =
        "1: Redis uses over four fifths of its memory, and products that it does not have are read from the database";
    metrics::register("product_cache_full", help, Gauge::default())
});

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) last: Option<Last>,
    /// Versions of the changes of the last seconds, which need not be copied again to the same Redis.
    versions: HashMap<ProductId, i64>,
    is_failing: bool,
    /// Whether Redis had no room for products then.
    pub(super) is_full: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    /// When the database was read.
    pub(super) at: Instant,
    /// The same in the database's time.
    time: OffsetDateTime,
    pub(super) epoch: i64,
}

/// One unit of the job `product.cache`.
pub(crate) async fn sync(service: Arc<Service>) -> Result<Next, Unexpected> {
    let Some(shared) = service.cache.shared.as_ref() else { return Ok(Next::AfterPause) };
    let (at, time) = (Instant::now(), service.clock.now());
    let changed = read_changes(&service, shared, time).await?;
    match copy(shared, &changed).await {
        Ok((epoch, is_full)) => {
            FULL.set(is_full.into());
            let mut copied = shared.copied.lock().expect("nothing panics while it holds this lock");
            copied.versions = changed.into_iter().collect();
            copied.last = Some(Last { at, time, epoch });
            if std::mem::replace(&mut copied.is_full, is_full) != is_full {
                tracing::info!(is_full, "whether Redis is too full for products has changed");
            }
            if std::mem::take(&mut copied.is_failing) {
                tracing::info!("products are read from Redis again");
            }
        }
        Err(error) => {
            let mut copied = shared.copied.lock().expect("nothing panics while it holds this lock");
            if !std::mem::replace(&mut copied.is_failing, true) {
                tracing::warn!(%error, "products are read from the database until Redis responds");
            }
        }
    }
    Ok(Next::AfterPause)
}

/// What changed since the last copy. What changed longer ago than an entry lives is in no entry.
async fn read_changes(
    service: &Service,
    shared: &Shared,
    now: OffsetDateTime,
) -> Result<Vec<(ProductId, i64)>, Unexpected> {
    let oldest = now - shared.lifetime;
    let last = shared.copied.lock().expect("nothing panics while it holds this lock").last;
    let since = last.map_or(oldest, |last| last.time.max(oldest)) - COMMITS_WITHIN;
    let changed = sqlx::query!(
        r#"select product_id as "product_id: ProductId", version from product where updated_at >= $1"#,
        since
    );
    Ok(changed.fetch_all(&service.db).await?.into_iter().map(|row| (row.product_id, row.version)).collect())
}

/// Copies what this Redis does not have. Returns its epoch, and whether it is full.
async fn copy(shared: &Shared, changed: &[(ProductId, i64)]) -> Result<(i64, bool), chassis::redis::Error> {
    let (new, last) = {
        let copied = shared.copied.lock().expect("nothing panics while it holds this lock");
        let is_new = |(product_id, version): &&(ProductId, i64)| copied.versions.get(product_id) != Some(version);
        (changed.iter().filter(is_new).copied().collect::<Vec<_>>(), copied.last)
    };
    let epoch = shared.invalidate(&new).await?;
    if last.is_some_and(|last| last.epoch != epoch) {
        // It has lost all marks.
        shared.invalidate(changed).await?;
    }
    Ok((epoch, shared.is_full().await?))
}
