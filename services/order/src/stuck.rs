//! Orders that did not settle or were not paid for in time, as a metric and a line in the log.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chassis::Next;
use chassis::Unexpected;
use chassis::boot::metrics::{self, ByProblem};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::service::Service;

/// How long after its deadline an order may be unsettled, and after its confirmation unpaid.
const PATIENCE: Duration = Duration::from_secs(60);

static STUCK: LazyLock<Family<ByProblem, Gauge>> = LazyLock::new(|| {
    metrics::register("orders_stuck", "Orders that did not settle or were not paid for in time", Family::default())
});
static LAST: AtomicI64 = AtomicI64::new(0);

pub(crate) async fn count_stuck(service: Arc<Service>) -> Result<Next, Unexpected> {
    let since = service.clock.now() - PATIENCE;
    let row = sqlx::query!(
        r#"select
             (select count(*) from "order" where state in ('PENDING', 'RESERVED') and expires_at < $1) as "unsettled!",
             (select count(*) from "order" where state = 'CONFIRMED' and not captured and updated_at < $1) as "unpaid!""#,
        since,
    )
    .fetch_one(&service.db)
    .await?;
    STUCK.get_or_create(&ByProblem::new("unsettled")).set(row.unsettled);
    STUCK.get_or_create(&ByProblem::new("unpaid")).set(row.unpaid);
    let total = row.unsettled + row.unpaid;
    match (LAST.swap(total, Ordering::Relaxed), total) {
        (0, 1..) => tracing::warn!(unsettled = row.unsettled, unpaid = row.unpaid, "orders are stuck"),
        (1.., 0) => tracing::info!("no order is stuck any more"),
        _ => {}
    }
    Ok(Next::AfterPause)
}
