//! How often the provider may be asked. All replicas share one row of the database: a call is granted a moment there, in its
//! order, and a call that the provider refuses for its limits pauses all calls and halves the pace. Times are compared by the
//! database's clock only.
//!
//! Calls are taken in batches, as large as the last one was used up, so that the row is written some ten times a second by a
//! replica at most, however many calls it makes.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use chassis::Unexpected;
use chassis::boot::metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};

/// How long a call waits for its moment before it is put off.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The burst after a quiet moment: a fifth of the calls of a second, at four fifths of its pace, so that no second has more calls
/// than it may.
const BURST: Duration = Duration::from_millis(250);
const PACE: f64 = 0.8;
/// What a batch has left after this is lost.
const BATCH_LASTS: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: f64 = 5.0;
/// How long a call that is not urgent waits for others at most.
const LONGEST_BACK: Duration = Duration::from_secs(30);
/// Where the provider says how long.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(60);

static WAITS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::register("provider_budget_waits", "Calls to the payment provider that waited", Counter::default())
});
static WAITED: LazyLock<Counter<f64, std::sync::atomic::AtomicU64>> = LazyLock::new(|| {
    metrics::register("provider_budget_wait_seconds", "How long calls to the provider waited", Counter::default())
});
static PAUSE: LazyLock<Gauge<f64, std::sync::atomic::AtomicU64>> = LazyLock::new(|| {
    metrics::register(
        "provider_pause_seconds",
        "How long the payment provider is left alone after it refused a call for its limits; 0: it is not",
        Gauge::default(),
    )
});

/// Calls, and comparisons among them, a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) calls: u32,
    pub(crate) comparisons: u32,
}

impl Rates {
    /// `calls` is PAYMENT_PROVIDER_RATE, `comparisons` is PAYMENT_RECONCILE_RATE.
    pub(crate) fn new(calls: u32, comparisons: u32) -> Result<Self, String> {
        if comparisons > calls {
            return Err(format!(
                "PAYMENT_RECONCILE_RATE: {comparisons} comparisons a second are more than the {calls} calls of PAYMENT_PROVIDER_RATE"
            ));
        }
        Ok(Self { calls, comparisons })
    }
}

pub(crate) struct Budget {
    db: PgPool,
    rates: Rates,
    batch: tokio::sync::Mutex<Batch>,
    /// Until when the provider is left alone, as far as this replica knows.
    paused: Mutex<Option<Instant>>,
}

/// Calls that were granted and are not made yet.
#[derive(Debug, Clone, Copy)]
struct Batch {
    left: u32,
    size: u32,
    until: Instant,
    /// How large the next may be.
    most: u32,
}

impl Batch {
    fn none() -> Self {
        Self { left: 0, size: 0, until: Instant::now(), most: 1 }
    }

    /// Twice as large if all of it was used in time, otherwise as large as what was.
    fn next_size(&self, now: Instant) -> u32 {
        let wanted = if now < self.until { self.size * 2 } else { self.size - self.left };
        wanted.clamp(1, self.most)
    }
}

/// A call that was not made, and must not be made now.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) why: String,
    /// None: it is not known for how long.
    pub(crate) pause: Option<Duration>,
}

impl From<Unexpected> for Deferred {
    fn from(error: Unexpected) -> Self {
        Self { why: format!("the budget of calls cannot be read: {error}"), pause: None }
    }
}

impl Budget {
    pub(crate) fn new(db: PgPool, rates: Rates) -> Self {
        Self { db, rates, batch: Batch::none().into(), paused: Mutex::default() }
    }

    /// How long the provider is left alone.
    pub(crate) fn paused(&self) -> Option<Duration> {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (*paused)?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        if left.is_none() {
            *paused = None;
            PAUSE.set(0.0);
            tracing::info!("the payment provider is asked again, more slowly at first");
        }
        left
    }

    /// Waits until one call may be made.
    pub(crate) async fn take(&self) -> Result<(), Deferred> {
        self.go_on()?;
        let begun = Instant::now();
        let Ok(mut batch) = timeout(PATIENCE, self.batch.lock()).await else { return Err(crowded()) };
        if batch.left == 0 || batch.until <= Instant::now() {
            let size = batch.next_size(Instant::now());
            *batch = Batch::none();
            let (granted, wait) = self.grant(size).await?;
            // Other callers queue behind this one.
            sleep(wait).await;
            *batch = Batch { until: Instant::now() + BATCH_LASTS, ..granted };
        }
        // The pause may have begun meanwhile.
        self.go_on().inspect_err(|_| *batch = Batch::none())?;
        batch.left -= 1;
        let waited = begun.elapsed();
        if waited > Duration::from_millis(20) {
            WAITS.inc();
            WAITED.inc_by(waited.as_secs_f64());
        }
        Ok(())
    }

    /// Whether one payment may be compared now: comparisons have a pace of their own, and none begins while calls wait.
    pub(crate) async fn take_comparison(&self) -> Result<bool, Unexpected> {
        if self.paused().is_some() {
            return Ok(false);
        }
        let taken = sqlx::query!(
            "update provider_budget
             set compared_until = greatest(compared_until, clock_timestamp() - interval '1 second')
               + make_interval(secs => $1)
             where paused_until <= clock_timestamp() and compared_until <= clock_timestamp()
               and spent_until <= clock_timestamp() + make_interval(secs => $2)",
            1.0 / f64::from(self.rates.comparisons),
            BURST.as_secs_f64() / 2.0,
        );
        Ok(taken.execute(&self.db).await?.rows_affected() == 1)
    }

    /// Waits until no payment waits for a call, so that what is not urgent stands back; for a while at most, as otherwise it
    /// would never end where payments use up all there is.
    pub(crate) async fn stand_back(&self) -> Result<(), Unexpected> {
        let idle = async || {
            let idle = sqlx::query_scalar!(
                r#"select paused_until <= clock_timestamp()
                     and spent_until <= clock_timestamp() + make_interval(secs => $1) as "idle!" from provider_budget"#,
                BURST.as_secs_f64() / 2.0,
            );
            Ok::<_, Unexpected>(idle.fetch_one(&self.db).await?)
        };
        let begun = Instant::now();
        while !idle().await? && begun.elapsed() < LONGEST_BACK {
            sleep(BURST / 2).await;
        }
        Ok(())
    }

    /// The provider refused a call for its limits. The first refusal counts; those of calls that were under way do not.
    pub(crate) async fn pause(&self, asked_for: Option<Duration>) -> Result<Duration, Unexpected> {
        let asked_for = asked_for.map(|it| it.min(LONGEST_ASKED_FOR).as_secs_f64());
        sqlx::query!(
            "update provider_budget
             set slowdown = least(10, ceil(slowdown_now(provider_budget)) + 1),
               paused_until = clock_timestamp() + make_interval(secs => coalesce($1::double precision,
                 least($2, 0.1 * power(2, ceil(slowdown_now(provider_budget)) + 1) * $3)))
             where paused_until <= clock_timestamp()",
            asked_for,
            LONGEST_PAUSE,
            rand::random_range(0.8..1.2),
        )
        .execute(&self.db)
        .await?;
        let rest = self.look().await?;
        self.leave_alone(rest);
        if let Ok(mut batch) = self.batch.try_lock() {
            *batch = Batch::none();
        }
        Ok(rest)
    }

    fn go_on(&self) -> Result<(), Deferred> {
        self.paused().map_or(Ok(()), |rest| Err(left_alone(rest)))
    }

    /// A batch, and how long it is until its first call may be made. After a pause nothing is made up for.
    async fn grant(&self, size: u32) -> Result<(Batch, Duration), Deferred> {
        let (per_second, most) = (f64::from(self.rates.calls) * PACE, f64::from(self.rates.calls) / 10.0);
        let share = f64::from(size) / per_second;
        let granted = sqlx::query!(
            r#"update provider_budget
               set spent_until = greatest(spent_until, clock_timestamp(), paused_until + make_interval(secs => $3))
                 + make_interval(secs => $1 * power(2, slowdown_now(provider_budget)))
               where paused_until <= clock_timestamp()
                 and spent_until <= clock_timestamp() + make_interval(secs => $2)
               returning extract(epoch from spent_until - clock_timestamp())::double precision as "ahead!",
                 power(2, slowdown_now(provider_budget)) as "slower!""#,
            share,
            (BURST + PATIENCE).as_secs_f64(),
            BURST.as_secs_f64(),
        );
        let Some(granted) = granted.fetch_optional(&self.db).await.map_err(Unexpected::from)? else {
            let rest = self.look().await?;
            if rest.is_zero() {
                return Err(crowded());
            }
            self.leave_alone(rest);
            return Err(left_alone(rest));
        };
        let wait = granted.ahead - share * granted.slower - BURST.as_secs_f64();
        let most = (most / granted.slower).max(1.0) as u32;
        Ok((Batch { left: size, size, until: Instant::now(), most }, Duration::from_secs_f64(wait.max(0.0))))
    }

    /// How long the pause still lasts.
    async fn look(&self) -> Result<Duration, Unexpected> {
        let left = sqlx::query_scalar!(
            r#"select greatest(0, extract(epoch from paused_until - clock_timestamp()))::double precision as "left!"
               from provider_budget"#,
        );
        Ok(Duration::from_secs_f64(left.fetch_one(&self.db).await?))
    }

    fn leave_alone(&self, rest: Duration) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_none() {
            tracing::warn!(?rest, "the payment provider refused a call for its limits, and is left alone");
        }
        *paused = Some(Instant::now() + rest);
        PAUSE.set(rest.as_secs_f64());
    }
}

fn left_alone(pause: Duration) -> Deferred {
    Deferred { why: "the provider refused calls for its limits, and is left alone".to_owned(), pause: Some(pause) }
}

fn crowded() -> Deferred {
    Deferred { why: format!("there was no room in the budget of calls for {PATIENCE:?}"), pause: Some(PATIENCE) }
}
