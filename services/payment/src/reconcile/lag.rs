//! How late comparisons with the provider are.

use std::sync::{Arc, LazyLock};

use chassis::boot::metrics;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::gauge::Gauge;
use time::{Duration, OffsetDateTime};

use super::comparable;
use crate::service::Service;

/// How late a comparison may be before it is logged.
const TOLERATED: Duration = Duration::hours(1);

static LAG: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "payment_comparison_lag_seconds",
        "How late the oldest comparison of a payment with the provider is",
        Gauge::default(),
    )
});

/// When the oldest daily comparison that has not begun was due.
pub(super) async fn oldest_due(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = comparable!(
        r#"select check_at as "at!" from payment where"#
            .."and check_at > 'epoch' and check_at <= $1
             and intent_id is not null and (leased_until is null or leased_until < $1)
           order by check_at limit 1",
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// When the oldest comparison that has no response of the provider was due.
async fn oldest_without_response(service: &Service) -> Result<Option<OffsetDateTime>, Unexpected> {
    let oldest = comparable!(
        r#"select unanswered_since as "since!" from payment where"#
            .."and unanswered_since is not null
           order by unanswered_since limit 1",
        service.clock.now(),
    );
    Ok(oldest.fetch_optional(&service.db).await?)
}

/// How late the oldest comparison is.
pub(crate) struct Lag {
    /// That has not begun.
    not_begun: Duration,
    /// That began, but has no response of the provider.
    without_response: Duration,
}

impl Lag {
    pub(crate) async fn measure(service: &Service) -> Result<Self, Unexpected> {
        let now = service.clock.now();
        let late = |since: Option<OffsetDateTime>| since.map_or(Duration::ZERO, |since| now - since);
        let (not_begun, without_response) = (oldest_due(service).await?, oldest_without_response(service).await?);
        Ok(Self { not_begun: late(not_begun), without_response: late(without_response) })
    }

    pub(crate) fn longest(&self) -> Duration {
        self.not_begun.max(self.without_response)
    }

    pub(crate) fn why(&self) -> &'static str {
        if self.without_response < self.not_begun {
            "PAYMENT_RECONCILE_RATE is too low"
        } else {
            "the provider does not respond"
        }
    }
}

pub(crate) async fn measure_lag(service: Arc<Service>) -> Result<Next, Unexpected> {
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
    Ok(Next::AfterPause)
}
