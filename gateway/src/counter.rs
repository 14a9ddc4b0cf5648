//! Counts requests in Redis.

use std::time::{Duration, Instant};

use chassis::redis::{Error, Redis, Script};
use quick_cache::sync::Cache;

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

/// For so long, a limit that refused is not asked again: a flood of refused calls would make Redis slow, and then the edge would
/// admit them. No longer, as Redis may lose its counts.
const REMEMBER: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 10_000;

pub(crate) struct Counter {
    redis: Redis,
    script: Script,
    /// Until when a limit refuses, by its key. Nothing could be admitted before.
    refused: Cache<String, Instant>,
}

impl Counter {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis, script: Script::new(include_str!("count.lua")), refused: Cache::new(REMEMBERED) }
    }

    /// Counts a request against all limits if each of them admits it, and otherwise against none.
    pub(crate) async fn count(&self, limits: &[(String, Limit)]) -> Result<Vec<Counted>, Error> {
        if let Some(refused) = self.recall(limits) {
            return Ok(refused);
        }
        let keys = limits.iter().map(|(key, _)| format!("souk:limit:{key}")).collect();
        let arguments = limits.iter().flat_map(|(_, limit)| limit.arguments()).collect();
        let response = self.redis.run_script(&self.script, keys, arguments).await?;
        let counted = response.chunks_exact(3).map(|limit| Counted {
            admits: limit[0] == 1,
            remaining: u32::try_from(limit[1]).unwrap_or(0),
            wait: Duration::from_millis(u64::try_from(limit[2]).unwrap_or(0)),
        });
        let counted: Vec<_> = counted.collect();
        let now = Instant::now();
        for ((key, _), refused) in limits.iter().zip(&counted).filter(|(_, counted)| !counted.admits) {
            self.refused.insert(key.clone(), now + refused.wait.min(REMEMBER));
        }
        Ok(counted)
    }

    /// The outcome, if one of the limits refused recently and still does.
    fn recall(&self, limits: &[(String, Limit)]) -> Option<Vec<Counted>> {
        let now = Instant::now();
        let wait = |key: &String| self.refused.get(key).and_then(|until| until.checked_duration_since(now));
        let counted = limits.iter().map(|(key, limit)| match wait(key) {
            Some(wait) => Counted { admits: false, remaining: 0, wait },
            None => Counted { admits: true, remaining: limit.size(), wait: Duration::ZERO },
        });
        let counted: Vec<_> = counted.collect();
        counted.iter().any(|counted| !counted.admits).then_some(counted)
    }
}
