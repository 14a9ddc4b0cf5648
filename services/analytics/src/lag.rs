//! How far the figures are behind the topic. Each replica knows it of the partitions that it consumes, and writes it down, so
//! that every replica can report all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use chassis::boot::db::column;
use chassis::boot::metrics;
use chassis::event::PartitionLag;
use chassis::{Next, Unexpected};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::service::Service;

pub(crate) const EVERY: Duration = Duration::from_secs(5);

static EVENTS: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register("projection_lag_events", "Events that no replica has added to the figures yet", Gauge::default())
});
static SECONDS: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::register(
        "projection_lag_seconds",
        "For how many seconds events have been waiting without a newer one being added to the figures",
        Gauge::default(),
    )
});

/// What this replica knows.
#[derive(Default)]
pub(crate) struct Lag(Mutex<BTreeMap<i32, Known>>);

#[derive(Default, Clone, Copy)]
struct Known {
    /// None until it is measured again.
    waiting: Option<i64>,
    last_event_at: Option<OffsetDateTime>,
}

impl Lag {
    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Known>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// Events of these partitions were handled.
    pub(crate) fn handled(&self, events: impl Iterator<Item = (i32, OffsetDateTime)>) {
        let mut known = self.known();
        for (partition, at) in events {
            known.entry(partition).or_default().last_event_at = Some(at);
        }
    }

    pub(crate) fn observe(&self, partitions: &[PartitionLag]) {
        let mut known = self.known();
        for it in partitions {
            known.entry(it.partition).or_default().waiting = Some(it.waiting);
        }
    }

    /// What was measured since the last call.
    fn take(&self) -> Vec<(i32, i64, Option<OffsetDateTime>)> {
        let mut known = self.known();
        let measured = known.iter_mut().filter_map(|(partition, known)| {
            known.waiting.take().map(|waiting| (*partition, waiting, known.last_event_at))
        });
        measured.collect()
    }
}

/// Writes down what was measured, and sets the metrics to the sum over all partitions.
pub(crate) async fn record(service: Arc<Service>) -> Result<Next, Unexpected> {
    let (measured, now) = (service.lag.take(), service.clock.now());
    if !measured.is_empty() {
        sqlx::query!(
            "insert into partition_lag (partition, waiting, last_event_at, measured_at, behind_since)
             select partition, waiting, last_event_at, $4::timestamptz, case when waiting > 0 then $4::timestamptz end
             from unnest($1::integer[], $2::bigint[], $3::timestamptz[]) as measured (partition, waiting, last_event_at)
             on conflict on constraint partition_lag_partition do update
             set waiting = excluded.waiting, measured_at = excluded.measured_at,
               last_event_at = coalesce(excluded.last_event_at, partition_lag.last_event_at),
               behind_since = case when excluded.waiting > 0
                 then coalesce(partition_lag.behind_since, excluded.behind_since) end",
            &column(&measured, |(partition, _, _)| *partition),
            &column(&measured, |(_, waiting, _)| *waiting),
            &column(&measured, |(_, _, last_event_at)| *last_event_at) as &[Option<OffsetDateTime>],
            now,
        )
        .execute(&service.db)
        .await?;
    }
    let total = read(&service.db, now).await?;
    EVENTS.set(total.events);
    SECONDS.set(total.seconds);
    Ok(Next::AfterPause)
}

pub(crate) struct Total {
    pub(crate) events: i64,
    pub(crate) seconds: i64,
    /// When the oldest of the partitions was measured.
    pub(crate) measured_at: Option<OffsetDateTime>,
}

/// A partition is behind since its events began to wait, or since the last one happened that was handled, whichever is later. So
/// constant traffic, of which some always waits, is no delay, and neither is the first event after a quiet night.
pub(crate) async fn read(db: &PgPool, now: OffsetDateTime) -> Result<Total, sqlx::Error> {
    let total = sqlx::query_as!(
        Total,
        r#"select coalesce(sum(waiting), 0)::bigint as "events!",
             coalesce(greatest(0, floor(extract(epoch from $1 - min(greatest(last_event_at, behind_since))
               filter (where waiting > 0)))), 0)::bigint as "seconds!",
             min(measured_at) as measured_at
           from partition_lag"#,
        now,
    );
    total.fetch_one(db).await
}
