//! A rate limit like Stripe's: calls within any second. A call beyond it gets 429 and has no effect.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use crate::Provider;
use crate::error::Error;
use crate::params::Params;

const WINDOW: Duration = Duration::from_secs(1);

/// The values of `Stripe-Rate-Limited-Reason`, and `lock_timeout`, which is a 429 without that header.
const REASONS: [&str; 5] =
    ["global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", Limit::LOCK_TIMEOUT];

/// Why a call gets 429.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) reason: &'static str,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
}

impl Limit {
    pub(crate) const LOCK_TIMEOUT: &'static str = "lock_timeout";
}

#[derive(Default)]
pub(crate) struct Limits {
    /// Calls per second. `None`: no limit.
    rule: Option<(u64, Limit)>,
    /// The calls of the last second.
    served_at: VecDeque<Instant>,
    /// Since the rule was set.
    served: u64,
    refused: u64,
}

impl Limits {
    fn admit(&mut self, now: Instant) -> Result<(), Limit> {
        if let Some((per_second, limit)) = self.rule {
            while self.served_at.front().is_some_and(|&at| now.duration_since(at) >= WINDOW) {
                self.served_at.pop_front();
            }
            if self.served_at.len() as u64 >= per_second {
                self.refused += 1;
                return Err(limit);
            }
            self.served_at.push_back(now);
        }
        self.served += 1;
        Ok(())
    }
}

pub(crate) async fn admit(
    State(provider): State<Provider>,
    request: Request<Body>,
    next: Next,
) -> Result<Response, Error> {
    provider.limits().admit(Instant::now()).map_err(Error::Limited)?;
    Ok(next.run(request).await)
}

pub(crate) async fn set(State(provider): State<Provider>, mut params: Params) -> Result<StatusCode, Error> {
    let per_second = params.take_count("per_second", 0, 100_000)?;
    let reason = params.take_one_of("reason", &REASONS)?;
    let retry_after = params.take_count("retry_after", 0, 3_600)?;
    params.end()?;
    let reason = REASONS.into_iter().find(|known| reason.as_deref() == Some(known)).unwrap_or(REASONS[0]);
    let rule = per_second.map(|per_second| (per_second, Limit { reason, retry_after }));
    *provider.limits() = Limits { rule, ..Limits::default() };
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn show(State(provider): State<Provider>) -> Json<Value> {
    let limits = provider.limits();
    Json(json!({"served": limits.served, "refused": limits.refused}))
}
