//! Counts requests in Redis.

use std::time::Duration;

use chassis::redis::{Error, Redis, Script};

/// What a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// At most so many in any period of this length: a window that slides. One that starts anew at fixed times would admit twice
    /// as many around such a time.
    Window { count: u32, period: Duration },
    /// A token bucket. It needs one number per key, however large the limit is, so it suits frequent calls.
    Bucket { rate: u32, burst: u32 },
}

impl Limit {
    /// How many it admits at once.
    pub(crate) fn size(self) -> u32 {
        match self {
            Self::Window { count, .. } => count,
            Self::Bucket { burst, .. } => burst,
        }
    }

    /// As `count.lua` reads it.
    fn arguments(self) -> [String; 3] {
        match self {
            Self::Window { count, period } => ["window".into(), count.to_string(), period.as_micros().to_string()],
            Self::Bucket { rate, burst } => {
                ["bucket".into(), 1_000_000_u32.div_ceil(rate).to_string(), burst.to_string()]
            }
        }
    }
}

/// The outcome for one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) admits: bool,
    /// How many more it admits now.
    pub(crate) remaining: u32,
    /// The time until it admits more.
    pub(crate) wait: Duration,
}

pub(crate) struct Counter {
    redis: Redis,
    script: Script,
}

impl Counter {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis, script: Script::new(include_str!("count.lua")) }
    }

    /// Counts a request against all limits if each of them admits it, and otherwise against none.
    pub(crate) async fn count(&self, limits: &[(String, Limit)]) -> Result<Vec<Counted>, Error> {
        let keys = limits.iter().map(|(key, _)| format!("souk:limit:{key}")).collect();
        let arguments = limits.iter().flat_map(|(_, limit)| limit.arguments()).collect();
        let response = self.redis.run_script(&self.script, keys, arguments).await?;
        let counted = response.chunks_exact(3).map(|limit| Counted {
            admits: limit[0] == 1,
            remaining: u32::try_from(limit[1]).unwrap_or(0),
            wait: Duration::from_millis(u64::try_from(limit[2]).unwrap_or(0)),
        });
        Ok(counted.collect())
    }
}
