//! The Redis client: reads keys and runs Lua scripts, each in one round trip. Redis holds only what may be lost, such as the
//! counters of limits: callers continue without it, so every call ends soon, and a Redis that is down or frozen costs one short wait a
//! second.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{ReconnectPolicy, UnresponsiveConfig};
use fred::types::{Builder, CustomCommand, Value, scripts};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::boot::config::{first_line, parse_duration};
use crate::boot::metrics::{self, ByProblem};
use crate::boot::settings::Prefix;
use crate::rpc::breaker::{Breaker, CircuitOpen, FAIR_TIME};

/// The Redis server.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The URL of Redis, which counts limits and keeps products that were read: rediss://host:port uses TLS, with the system's authorities or those of
    /// SSL_CERT_FILE. Only on loopback may it be redis://.
    #[arg(default_value = "redis://127.0.0.1:16379", hide_env_values = true)]
    pub url: SecretString,
    /// A file with the password of Redis in its first line, instead of one in the URL.
    pub password_file: Option<PathBuf>,
    /// How long a call of Redis may take. By default, a hundred times what it usually takes.
    #[arg(default_value = "50ms", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl Prefix for Config {
    const PREFIX: &'static str = "souk_redis";
}

const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A connection that is silent for this long while calls wait is replaced.
const SILENT_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Waits between attempts to connect, in milliseconds.
const RECONNECT: (u32, u32) = (50, 2_000);
/// Calls that wait to be sent; more are refused.
const MAX_WAITING: usize = 1_000;

static FAILURES: LazyLock<Family<ByProblem, Counter>> =
    LazyLock::new(|| metrics::register("redis_failures", "Calls of Redis that failed, by problem", Family::default()));

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Redis: {0}")]
    Unavailable(#[from] CircuitOpen),
    #[error("Redis: {0}")]
    Failed(#[from] FredError),
}

/// A Lua script that Redis runs as one step. Redis caches it, and gets its text again if it has lost it.
#[derive(Debug)]
pub struct Script(scripts::Script);

impl Script {
    pub fn new(lua: &'static str) -> Self {
        Self(scripts::Script::from_lua(lua))
    }
}

/// A connection that is replaced when it breaks. Clones share it.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    breaker: Arc<Breaker>,
}

impl Redis {
    /// It connects when [`Redis::run`] runs.
    pub fn new(config: &Config) -> Result<Self, String> {
        let url = config.url.expose_secret();
        let address = parse_address(url)?;
        let parsed = fred::types::config::Config::from_url(url);
        let mut parsed = parsed.map_err(|error| format!("SOUK_REDIS_URL: {}", error.details()))?;
        if let Some(file) = &config.password_file {
            let password = first_line(file).map_err(|why| format!("SOUK_REDIS_PASSWORD_FILE: {why}"))?;
            parsed.password = Some(password);
        }
        parsed.fail_fast = false;
        let mut builder = Builder::from_config(parsed);
        builder.with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_WITHIN;
            connection.internal_command_timeout = CONNECT_WITHIN;
            // A call that is sent again might count twice.
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = MAX_WAITING;
            connection.unresponsive = UnresponsiveConfig { max_timeout: Some(SILENT_FOR), interval: LOOK_EVERY };
            connection.tcp.nodelay = Some(true);
        });
        builder.with_performance_config(|performance| performance.default_command_timeout = config.timeout);
        let (least, most) = RECONNECT;
        builder.set_policy(ReconnectPolicy::new_exponential(0, least, most, 2));
        let client = builder.build().map_err(|error| format!("SOUK_REDIS_URL: {}", error.details()))?;
        Ok(Self { client, breaker: Breaker::new("redis", address) })
    }

    /// Keeps a connection until `stop`: a background task of the role that uses it.
    pub async fn run(self, stop: CancellationToken) {
        let connection = self.client.connect();
        stop.cancelled().await;
        // Without it, the task of the connection would reconnect for ever.
        connection.abort();
    }

    /// Waits for the first connection.
    pub async fn connected(&self) -> Result<(), Error> {
        Ok(self.client.wait_for_connect().await?)
    }

    /// Runs a script, which returns a list of integers.
    pub async fn run_script(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Result<Vec<i64>, Error> {
        let arguments = arguments.into_iter().map(String::into_bytes).collect();
        self.run_script_with_bytes(script, keys, arguments).await
    }

    /// The same, with arguments that are no texts.
    pub async fn run_script_with_bytes(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<i64>, Error> {
        let arguments: Vec<_> = arguments.into_iter().map(|it| Value::Bytes(it.into())).collect();
        self.call(script.0.evalsha_with_reload(&self.client, keys, arguments)).await
    }

    /// Reads a key.
    pub async fn get(&self, key: String) -> Result<Option<Bytes>, Error> {
        let get = CustomCommand::new_static("GET", None, false);
        self.call(self.client.custom(get, vec![key])).await
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, FredError>>) -> Result<T, Error> {
        let attempt = self.breaker.begin(FAIR_TIME).inspect_err(|_| count("circuit open"))?;
        match call.await {
            Ok(result) => {
                attempt.succeeded();
                Ok(result)
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::Timeout => count("timeout"),
                    ErrorKind::IO | ErrorKind::Canceled => count("connection"),
                    _ => count("error"),
                }
                attempt.failed();
                Err(error.into())
            }
        }
    }
}

fn count(problem: &str) {
    FAILURES.get_or_create(&ByProblem::new(problem)).inc();
}

/// The host and port. What is counted, and the password, leave this machine encrypted.
fn parse_address(url: &str) -> Result<String, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("SOUK_REDIS_URL is not a URL: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(6_379));
    match uri.scheme_str() {
        Some("rediss") if !host.is_empty() => Ok(address),
        Some("redis") if is_here => Ok(address),
        Some("redis") => Err("SOUK_REDIS_URL must be rediss://: it is not on loopback".to_owned()),
        _ => Err("SOUK_REDIS_URL is not a URL such as rediss://redis:6379".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, timeout: Duration) -> Redis {
        Redis::new(&Config { url: url.into(), password_file: None, timeout }).expect("a good URL")
    }

    fn server() -> String {
        std::env::var("SOUK_TEST_REDIS").expect("SOUK_TEST_REDIS is the URL of a Redis, as in `make test`")
    }

    #[tokio::test]
    async fn a_script_runs_also_when_redis_has_forgotten_it() {
        let (redis, stop) = (client(&server(), Duration::from_secs(30)), CancellationToken::new());
        let running = tokio::spawn(redis.clone().run(stop.clone()));
        redis.connected().await.expect("it connects");
        // The text is new, so this Redis has never seen it.
        let text = format!("return {{#KEYS, tonumber(ARGV[1])}} -- {}", uuid::Uuid::now_v7());
        let script = Script::new(text.leak());
        for _ in 0..2 {
            let response = redis.run_script(&script, vec!["a".to_owned()], vec!["7".to_owned()]).await;
            assert_eq!(response.expect("Redis responds"), [1, 7]);
        }
        stop.cancel();
        running.await.expect("it ends");
    }

    #[tokio::test]
    async fn without_redis_calls_fail_soon_and_then_at_once() {
        // No server listens there.
        let (redis, stop) = (client("redis://127.0.0.1:1", Duration::from_millis(1)), CancellationToken::new());
        tokio::spawn(redis.clone().run(stop.clone()));
        let script = Script::new("return {1}");
        let mut refused = 0;
        for _ in 0..20 {
            match redis.run_script(&script, vec![], vec![]).await {
                Err(Error::Unavailable(_)) => refused += 1,
                Err(Error::Failed(_)) => {}
                Ok(response) => panic!("{response:?}"),
            }
        }
        assert!(refused > 0, "the circuit opens");
        assert!(metrics::render().contains("souk_redis_failures_total{problem=\"circuit open\"}"));
        stop.cancel();
    }

    #[test]
    fn a_url_is_encrypted_or_on_this_machine() {
        for good in
            ["redis://127.0.0.1:16379", "redis://:secret@localhost:1/2", "redis://[::1]:1", "rediss://redis:6379"]
        {
            assert!(parse_address(good).is_ok_and(|address| !address.contains("secret")), "{good}");
        }
        for odd in
            ["", "127.0.0.1:16379", "http://127.0.0.1:1", "redis://redis:6379", "redis://10.0.0.1:1", "rediss://"]
        {
            assert!(parse_address(odd).is_err_and(|why| why.starts_with("SOUK_REDIS_URL")), "{odd}");
        }
    }

    #[test]
    fn a_password_may_be_in_a_file() {
        let (url, timeout) = ("redis://127.0.0.1:1".into(), Duration::from_secs(1));
        let missing = Config { url, password_file: Some("/nowhere".into()), timeout };
        let refused = Redis::new(&missing).err().expect("there is no file");
        assert!(refused.starts_with("SOUK_REDIS_PASSWORD_FILE: /nowhere"), "{refused}");
    }
}
