//! The rate limit of calls to the provider. All replicas share one row of the database, which grants each call its time; a call
//! that the provider refuses for its rate limits pauses all calls and halves the rate. Times are compared by the database's
//! clock only.
//!
//! Calls are granted in batches, which grow while they are used up, so that a replica writes the row about ten times per second
//! at most, however many calls it makes.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use chassis::Unexpected;
use chassis::boot::metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};

/// How long a call waits for its time before it is deferred.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2);
/// The burst after an idle time: a fifth of a second's calls. The rate is four fifths, so that no second has more calls than
/// configured.
const BURST: Duration = Duration::from_millis(250);
const RATE_SHARE: f64 = 0.8;
/// Calls of a batch that are not made within this time are lost.
const BATCH_VALID: Duration = Duration::from_millis(200);
const MAX_PAUSE: f64 = 5.0;
/// How long a call that is not urgent waits for payments at most.
const MAX_WAIT_FOR_PAYMENTS: Duration = Duration::from_secs(30);
/// The longest pause that the provider can request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

static WAITS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::register("provider_budget_waits", "Calls to the payment provider that waited", Counter::default())
});
static WAITED: LazyLock<Counter<f64, std::sync::atomic::AtomicU64>> = LazyLock::new(|| {
    metrics::register("provider_budget_wait_seconds", "How long calls to the provider waited", Counter::default())
});
static PAUSE: LazyLock<Gauge<f64, std::sync::atomic::AtomicU64>> = LazyLock::new(|| {
    metrics::register(
        "provider_pause_seconds",
        "How long calls to the payment provider pause after it refused one for its rate limits; 0: no pause",
        Gauge::default(),
    )
});

/// Calls per second, and how many of them are comparisons.
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
                "PAYMENT_RECONCILE_RATE: {comparisons} comparisons per second are more than the {calls} calls of PAYMENT_PROVIDER_RATE"
            ));
        }
        Ok(Self { calls, comparisons })
    }
}

pub(crate) struct Budget {
    db: PgPool,
    rates: Rates,
    batch: tokio::sync::Mutex<Batch>,
    /// The end of the pause, as far as this replica knows.
    paused: Mutex<Option<Instant>>,
}

/// Calls that were granted and are not made yet.
#[derive(Debug, Clone, Copy)]
struct Batch {
    left: u32,
    size: u32,
    until: Instant,
    /// How large the next may be.
    max_next: u32,
}

impl Batch {
    fn none() -> Self {
        Self { left: 0, size: 0, until: Instant::now(), max_next: 1 }
    }

    /// Twice this size if all calls were made in time, otherwise the number of calls made.
    fn next_size(&self, now: Instant) -> u32 {
        let wanted = if now < self.until { self.size * 2 } else { self.size - self.left };
        wanted.clamp(1, self.max_next)
    }
}

/// A call that was not sent, and must not be sent now.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) why: String,
    /// For how long. None: unknown.
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

    /// How long the pause still lasts. None: there is none.
    pub(crate) fn paused(&self) -> Option<Duration> {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (*paused)?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        if left.is_none() {
            *paused = None;
            PAUSE.set(0.0);
            tracing::info!(
                "the pause has ended: calls to the payment provider are made again, at a lower rate at first"
            );
        }
        left
    }

    /// Waits until one call may be made.
    pub(crate) async fn take(&self) -> Result<(), Deferred> {
        self.refuse_if_paused()?;
        let begun = Instant::now();
        let Ok(mut batch) = timeout(MAX_WAIT, self.batch.lock()).await else { return Err(over_budget()) };
        if batch.left == 0 || batch.until <= Instant::now() {
            let size = batch.next_size(Instant::now());
            *batch = Batch::none();
            let (granted, wait) = self.grant(size).await?;
            // Other callers queue behind this one.
            sleep(wait).await;
            *batch = Batch { until: Instant::now() + BATCH_VALID, ..granted };
        }
        // The pause may have begun meanwhile.
        self.refuse_if_paused().inspect_err(|_| *batch = Batch::none())?;
        batch.left -= 1;
        let waited = begun.elapsed();
        if waited > Duration::from_millis(20) {
            WAITS.inc();
            WAITED.inc_by(waited.as_secs_f64());
        }
        Ok(())
    }

    /// Whether one payment may be compared now: comparisons have a rate of their own, and none begins while calls wait.
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

    /// Waits until no payment waits for a call. The wait is bounded, because payments may use up the budget all the time.
    pub(crate) async fn wait_for_payments(&self) -> Result<(), Unexpected> {
        let idle = async || {
            let idle = sqlx::query_scalar!(
                r#"select paused_until <= clock_timestamp()
                     and spent_until <= clock_timestamp() + make_interval(secs => $1) as "idle!" from provider_budget"#,
                BURST.as_secs_f64() / 2.0,
            );
            Ok::<_, Unexpected>(idle.fetch_one(&self.db).await?)
        };
        let begun = Instant::now();
        while !idle().await? && begun.elapsed() < MAX_WAIT_FOR_PAYMENTS {
            sleep(BURST / 2).await;
        }
        Ok(())
    }

    /// Begins a pause, because the provider refused a call for its rate limits. Refusals during a pause do not count: their calls
    /// were sent before it.
    pub(crate) async fn pause(&self, retry_after: Option<Duration>) -> Result<Duration, Unexpected> {
        let retry_after = retry_after.map(|it| it.min(MAX_RETRY_AFTER).as_secs_f64());
        sqlx::query!(
            "update provider_budget
             set slowdown = least(10, ceil(slowdown_now(provider_budget)) + 1),
               paused_until = clock_timestamp() + make_interval(secs => coalesce($1::double precision,
                 least($2, 0.1 * power(2, ceil(slowdown_now(provider_budget)) + 1) * $3)))
             where paused_until <= clock_timestamp()",
            retry_after,
            MAX_PAUSE,
            rand::random_range(0.8..1.2),
        )
        .execute(&self.db)
        .await?;
        let pause = self.read_pause().await?;
        self.begin_pause(pause);
        if let Ok(mut batch) = self.batch.try_lock() {
            *batch = Batch::none();
        }
        Ok(pause)
    }

    fn refuse_if_paused(&self) -> Result<(), Deferred> {
        self.paused().map_or(Ok(()), |pause| Err(paused_for(pause)))
    }

    /// A batch, and the time until its first call may be made. Calls that a pause prevented are not granted later.
    async fn grant(&self, size: u32) -> Result<(Batch, Duration), Deferred> {
        let (per_second, max_next) = (f64::from(self.rates.calls) * RATE_SHARE, f64::from(self.rates.calls) / 10.0);
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
            (BURST + MAX_WAIT).as_secs_f64(),
            BURST.as_secs_f64(),
        );
        let Some(granted) = granted.fetch_optional(&self.db).await.map_err(Unexpected::from)? else {
            let pause = self.read_pause().await?;
            if pause.is_zero() {
                return Err(over_budget());
            }
            self.begin_pause(pause);
            return Err(paused_for(pause));
        };
        let wait = granted.ahead - share * granted.slower - BURST.as_secs_f64();
        let max_next = (max_next / granted.slower).max(1.0) as u32;
        Ok((Batch { left: size, size, until: Instant::now(), max_next }, Duration::from_secs_f64(wait.max(0.0))))
    }

    /// How long the pause still lasts.
    async fn read_pause(&self) -> Result<Duration, Unexpected> {
        let left = sqlx::query_scalar!(
            r#"select greatest(0, extract(epoch from paused_until - clock_timestamp()))::double precision as "left!"
               from provider_budget"#,
        );
        Ok(Duration::from_secs_f64(left.fetch_one(&self.db).await?))
    }

    fn begin_pause(&self, pause: Duration) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_none() {
            tracing::warn!(?pause, "the payment provider refused a call for its rate limits: all calls pause");
        }
        *paused = Some(Instant::now() + pause);
        PAUSE.set(pause.as_secs_f64());
    }
}

fn paused_for(pause: Duration) -> Deferred {
    Deferred { why: "calls pause, because the provider refused one for its rate limits".to_owned(), pause: Some(pause) }
}

fn over_budget() -> Deferred {
    Deferred { why: format!("the budget of calls granted none within {MAX_WAIT:?}"), pause: Some(MAX_WAIT) }
}
