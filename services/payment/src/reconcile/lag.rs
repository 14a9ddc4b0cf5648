//! How late comparisons with the provider are.

use std::sync::{Arc, LazyLock};

use chassis::boot::metrics;
use chassis::{Did, Unexpected};
use prometheus_client::metrics::gauge::Gauge;
use time::{Duration, OffsetDateTime};

use super::at_rest;
use crate::service::Service;

/// How late a comparison may be before it is logged.
const TOLERATED: Duration = Duration::hours(1);

static LAG: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "payment_comparison_lag_seconds",
        "How long ago the payment was due that waits longest to be compared with the provider",
        Gauge::default(),
    )
});

/// Since when the payment is due that waits longest for its daily comparison to begin.
pub(super) async fn oldest_due(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = at_rest!(
        r#"select check_at as "at!" from payment where"#
            .."and check_at > 'epoch' and check_at <= $1
             and intent_id is not null and (leased_until is null or leased_until < $1)
           order by check_at limit 1",
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// Since when the comparison was due that waits longest for an answer of the provider.
async fn oldest_unanswered(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = at_rest!(
        r#"select unanswered_since as "since!" from payment where"#
            .."and unanswered_since is not null
           order by unanswered_since limit 1",
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// How late the payments are that wait longest.
pub(crate) struct Lag {
    /// For a comparison to begin.
    due: Duration,
    /// For an answer of the provider: one that it did not answer is as late as one that did not begin.
    unanswered: Duration,
}

impl Lag {
    pub(crate) async fn measure(service: &Service) -> Result<Self, Unexpected> {
        let now = service.clock.now();
        let late = |since: Option<OffsetDateTime>| since.map_or(Duration::ZERO, |since| now - since);
        let (due, unanswered) = (oldest_due(service).await?, oldest_unanswered(service).await?);
        Ok(Self { due: late(due), unanswered: late(unanswered) })
    }

    pub(crate) fn longest(&self) -> Duration {
        self.due.max(self.unanswered)
    }

    pub(crate) fn why(&self) -> &'static str {
        if self.unanswered < self.due { "PAYMENT_RECONCILE_RATE is too low" } else { "the provider does not answer" }
    }
}

/// How late comparisons are.
pub(crate) async fn measure_lag(service: Arc<Service>) -> Result<Did, Unexpected> {
    let found = Lag::measure(&service).await?;
    let lag = found.longest();
    let (before, seconds) = (LAG.get(), lag.whole_seconds());
    LAG.set(seconds);
    let (was_late, is_late) = (before > TOLERATED.whole_seconds(), lag > TOLERATED);
    if is_late && !was_late {
        tracing::warn!(%lag, why = found.why(), "payments are compared with the provider later than once a day");
    } else if was_late && !is_late {
        tracing::info!("payments are compared with the provider once a day again");
    }
    Ok(Did::Nothing)
}
