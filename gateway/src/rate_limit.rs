//! Envoy's rate limit service. The edge asks it for requests whose count has to be exact over all Envoys, and it may be asked by
//! nobody else. If it cannot count, it responds with an error, and the edge admits the request by its own limits.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::Duration;

use chassis::Role;
use chassis::boot::metrics::{self, ByOutcome};
use chassis::redis::Redis;
use prometheus_client::metrics::counter::Counter as Metric;
use prometheus_client::metrics::family::Family;
use tonic::{Request, Response, Status};

use crate::counter::{Counted, Counter, Limit};
use crate::limits::Limits;
use wire::rate_limit_response::Code;
use wire::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use wire::{HeaderValue, RateLimitDescriptor, RateLimitRequest, RateLimitResponse};

#[allow(clippy::all, unreachable_pub, reason = "generated code")]
pub(crate) mod wire {
    tonic::include_proto!("envoy.service.ratelimit.v3");
}

pub(crate) const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The edge, as a caller.
const EDGE: &str = "edge";
/// A request of the edge has two descriptors at the most.
const MAX_DESCRIPTORS: usize = 4;

static DECISIONS: LazyLock<Family<ByOutcome, Metric>> = LazyLock::new(|| {
    let help = "Requests whose count is exact over all Envoys: admitted, refused, or not counted as Redis is away";
    metrics::register("rate_limit", help, Family::default())
});

/// Adds the service to the role.
pub(crate) fn serve(role: Role, redis: Redis, limits: &Limits) -> Role {
    let role = role.serve_foreign(rate_limits(&redis, limits), SHOULD_RATE_LIMIT, &[EDGE]);
    role.background("the connection to Redis", |stop| redis.run(stop))
}

pub type Server = RateLimitServiceServer<RateLimits>;

/// The service alone.
pub fn rate_limits(redis: &Redis, limits: &Limits) -> Server {
    Server::new(RateLimits { counter: Counter::new(redis.clone()), limits: limits.clone() })
}

pub struct RateLimits {
    counter: Counter,
    limits: Limits,
}

#[tonic::async_trait]
impl RateLimitService for RateLimits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        if request.hits_addend > 1 {
            return Err(Status::invalid_argument("hits_addend: a request counts once"));
        }
        if request.descriptors.len() > MAX_DESCRIPTORS {
            return Err(Status::invalid_argument("descriptors: there are too many"));
        }
        let limits = request.descriptors.iter().map(|descriptor| find(&self.limits, descriptor));
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        match self.counter.count(&limits).await {
            Ok(counted) => Ok(Response::new(respond(&limits, &counted))),
            Err(error) => {
                count("not counted");
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}

fn count(outcome: &str) {
    DECISIONS.get_or_create(&ByOutcome::new(outcome)).inc();
}

/// The limit for a descriptor, and the name of what it counts.
fn find(limits: &Limits, descriptor: &RateLimitDescriptor) -> Result<(String, Limit), Status> {
    let entries: Vec<_> = descriptor.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let attempts = |factor: u32| Limit::Window {
        count: limits.account_count.saturating_mul(factor),
        period: limits.account_window,
    };
    match entries[..] {
        [("class", "account"), ("masked_remote_address", client)] => Ok((format!("account:{client}"), attempts(1))),
        [("class", "account"), ("scope", "network"), ("masked_remote_address", network)] => {
            Ok((format!("network:{network}"), attempts(limits.network_factor)))
        }
        [("class", "connection"), ("remote_address", address)] => {
            let limit = Limit::Bucket { rate: limits.connection_rate, burst: limits.connection_burst };
            Ok((format!("connection:{}", client_of(address)), limit))
        }
        [("class", "write"), ("role", role), ("user", user)] => {
            let (rate, burst) = match role {
                "operator" => (limits.operator_write_rate, limits.operator_write_burst),
                _ => (limits.customer_write_rate, limits.customer_write_burst),
            };
            Ok((format!("write:{user}"), Limit::Bucket { rate, burst }))
        }
        _ => Err(Status::invalid_argument("descriptors: there is no limit for one of them")),
    }
}

/// An IPv6 /64 network is one client, as the edge has it for requests.
fn client_of(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("{}/64", Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        _ => address.to_owned(),
    }
}

/// Whether all limits admit the request, with headers about the limit that is closest to refusing more
/// (draft-polli-ratelimit-headers-03).
fn respond(limits: &[(String, Limit)], counted: &[Counted]) -> RateLimitResponse {
    let closest = limits
        .iter()
        .zip(counted)
        .min_by_key(|(_, counted)| (counted.admits, counted.remaining, std::cmp::Reverse(counted.wait)));
    let Some(((_, limit), closest)) = closest else {
        return RateLimitResponse { overall_code: Code::Ok.into(), response_headers_to_add: vec![] };
    };
    let wait = seconds(closest.wait).to_string();
    let mut headers = vec![
        header("x-ratelimit-limit", format!("{}, {}", limit.size(), policy(*limit))),
        header("x-ratelimit-remaining", closest.remaining.to_string()),
        header("x-ratelimit-reset", wait.clone()),
    ];
    let code = if closest.admits { Code::Ok } else { Code::OverLimit };
    if code == Code::OverLimit {
        headers.push(header("retry-after", wait));
    }
    count(if code == Code::Ok { "admitted" } else { "refused" });
    RateLimitResponse { overall_code: code.into(), response_headers_to_add: headers }
}

fn policy(limit: Limit) -> String {
    match limit {
        Limit::Window { count, period } => format!("{count};w={}", seconds(period)),
        Limit::Bucket { rate, burst } => format!("{rate};w=1;burst={burst}"),
    }
}

/// Rounded up, so that a client that waits as long is not too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1_000).max(1).try_into().unwrap_or(u64::MAX)
}

fn header(key: &str, value: String) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value }
}

#[cfg(test)]
#[path = "tests/rate_limit.rs"]
mod tests;
