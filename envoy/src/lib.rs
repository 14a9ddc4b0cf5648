//! The edge: one Envoy in front of all roles. Its configuration is `envoy.yaml.j2`, filled from the contracts: one exact
//! route per public RPC, with its token requirement, rate limit and retries. Internal RPCs never have a route.
//!
//! Filters run in this order, so that policy is per RPC and the same for REST and gRPC: CORS, gRPC-Web, body size, HEAD
//! (`lua/head.lua`), headers (`lua/headers.lua`), strict REST requests (`lua/requests.lua`), ids of events (`lua/event_ids.lua`), transcoding, limits of addresses,
//! tokens, limits that are exact over all Envoys, their fallback, refusal of invalid bodies (`lua/body.lua`), routing. Limits of
//! addresses come before tokens, so that invalid tokens count against them.

mod bindings;
mod endpoints;
mod errors;
mod limits;
mod listeners;
mod routes;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::boot::config::{Tokens, parse_duration};
use chassis::boot::{Prefix, Prefixed};
use chassis::rpc::DEFAULT_DEADLINE;
use chassis::tls::{Mode, Tls};
use clap::{Args, ValueEnum};
use endpoints::Endpoints;
use gateway::Limits;
use listeners::{Admin, Plain, Switch};
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Serialize;

/// The edge.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Config {
    /// The address to which clients connect without TLS: on a laptop, or behind a balancer that terminates TLS. `off`: none.
    #[arg(default_value = "127.0.0.1:8080", value_parser = listeners::parse_plain)]
    listen: Plain,
    /// Whether the listener without TLS may have an address that is not on loopback, as behind a balancer that terminates TLS.
    #[arg(default_value = "off")]
    plain: Switch,
    /// The address to which clients connect with TLS, for HTTP/2 and HTTP/1.1. Unset: none.
    tls_listen: Option<SocketAddr>,
    /// The file with the certificate that clients see, named `server`, as a response of Envoy's secret discovery service; it is read
    /// again when it is replaced. Unset: the edge's own certificate, which only those trust that have Souk's authority.
    tls_secret_file: Option<PathBuf>,
    /// Envoy's admin interface: an address on loopback, or the path of a Unix socket.
    #[arg(default_value = "127.0.0.1:19901", value_parser = listeners::parse_admin)]
    admin_listen: Admin,
    /// How many balancers that append the client's address to x-forwarded-for are before the edge: before the listener with TLS,
    /// or before the other one if that is the only one. With 0, and at the other listener, that header is ignored.
    #[arg(default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10))]
    trusted_hops: u32,
    /// Whether connections begin with the PROXY protocol, by which a balancer tells the client's address: at the same listener.
    #[arg(default_value = "off")]
    proxy_protocol: Switch,
    /// The most connections of all clients together.
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// The size of Envoy's heap, in bytes, above which it refuses requests (at 95 %) and cuts slow clients earlier.
    #[arg(default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(MIN_HEAP..))]
    max_heap: u64,
    #[command(flatten)]
    endpoints: Endpoints,
    /// The trace collector (OTLP over gRPC), as host:port. Unset: no traces.
    otlp_endpoint: Option<String>,
    /// Origins whose pages may call the API from a browser, such as https://shop.example.
    #[arg(value_delimiter = ',')]
    cors_origins: Vec<String>,
    #[command(flatten)]
    pub tls: Prefixed<Tls>,
    /// The folder of `edge.yaml` and `authority.yaml`, as `souk envoy-secret` prints them: where Envoy finds certificates.
    #[arg(default_value = ".dev/up/envoy")]
    secrets_directory: PathBuf,
    #[command(flatten)]
    token: Prefixed<Tokens>,
    #[command(flatten)]
    limits: Prefixed<Limits>,
    /// How long a request may wait for its count over all Envoys; then it is counted here only, and the limit is not exact.
    #[arg(default_value = "500ms", value_parser = parse_time)]
    limits_timeout: Duration,
    /// Timeout of a call, at most 5s, which is the default deadline of services. A client's longer `grpc-timeout` is lowered
    /// to it.
    #[arg(default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
    /// The longest request body, in bytes.
    #[arg(default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    max_body: u32,
}

impl Prefix for Config {
    const PREFIX: &'static str = "edge";
}

/// The Lua filters. The last two form one program, together with the tables of `bindings`.
const HEAD: &str = include_str!("../lua/head.lua");
const HEADERS: &str = include_str!("../lua/headers.lua");
const BODY: &str = include_str!("../lua/body.lua");
const JSON: &str = include_str!("../lua/json.lua");
const EVENT_IDS: &str = include_str!("../lua/event_ids.lua");
const REQUESTS: &str = include_str!("../lua/requests.lua");
/// The shortest deadline that is passed to a service: more than an RPC usually takes.
const DEADLINE_FLOOR: Duration = Duration::from_millis(100);
/// How many bytes Envoy buffers of a connection, unless a body may be longer.
const BUFFER: u32 = 1 << 20;
/// What an idle Envoy with our configuration needs, several times over.
const MIN_HEAP: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the contracts: {0}")]
    Contracts(#[from] chassis::rpc::policy::Unreadable),
    #[error("the contracts have a service of the role `{0}`, which has no endpoints")]
    NoEndpoints(String),
    #[error("{variable}: `{value}` is not host:port")]
    Endpoint { variable: String, value: String },
    #[error("{0}: the edge cannot read its google.api.http")]
    Binding(String),
    #[error("{variable}: `{}` is not a path: {error}", path.display())]
    Path { variable: &'static str, path: PathBuf, error: std::io::Error },
    #[error(
        "EDGE_LISTEN: `{0}` is not on loopback, and clients connect to it without TLS; EDGE_TLS_LISTEN is with TLS, and behind a \
         balancer that terminates TLS, set EDGE_PLAIN=on"
    )]
    Plain(SocketAddr),
    #[error("EDGE_LISTEN is `off` and EDGE_TLS_LISTEN is not set, so clients could not connect")]
    NoListener,
    #[error("the template: {0}")]
    Template(#[from] minijinja::Error),
}

/// An Envoy cluster: the replicas of one role.
#[derive(Debug, Serialize)]
struct Cluster {
    name: &'static str,
    endpoints: Vec<Endpoint>,
    /// `STATIC` if all endpoints are IP addresses.
    r#type: &'static str,
    /// The gRPC service whose health is checked.
    health: String,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    host: String,
    port: u16,
}

/// The whole configuration, with the descriptors of the contracts.
pub fn render(config: &Config, descriptors: &[u8]) -> Result<String, Error> {
    let rpcs = routes::read(descriptors)?;
    let clusters = clusters(config, &rpcs)?;
    let mut services: Vec<_> = rpcs.iter().map(|rpc| rpc.service.as_str()).collect();
    services.dedup();
    let secrets = match config.tls.mode {
        Mode::Mutual => Some(absolute("EDGE_SECRETS_DIRECTORY", &config.secrets_directory)?),
        Mode::Mesh => None,
    };
    let yaml = environment().render_str(
        include_str!("../envoy.yaml.j2"),
        context! {
            listeners => listeners::of(config)?,
            admin => config.admin_listen.to_string(),
            tls_secret => listeners::secret(config)?,
            max_connections => config.max_connections,
            max_heap => config.max_heap,
            security_headers => listeners::SECURITY_HEADERS,
            descriptors => STANDARD.encode(descriptors),
            services,
            rpcs,
            clusters,
            head => [&bindings::write_streams(descriptors)?, HEAD].concat(),
            event_ids => EVENT_IDS,
            stream_paths => bindings::match_streams(descriptors)?,
            headers => [&deadlines(config.timeout), HEADERS].concat(),
            strict_bodies => BODY,
            strict_requests => [&bindings::write_lua(descriptors)?, JSON, REQUESTS].concat(),
            mappers => errors::mappers(config.max_body),
            otlp => config.otlp_endpoint.as_deref().map(|it| endpoint("EDGE_OTLP_ENDPOINT", it)).transpose()?,
            cors_origins => config.cors_origins,
            issuer => config.token.issuer,
            audience => config.token.audience,
            limits => limits::buckets(&config.limits),
            limits_timeout => seconds(config.limits_timeout),
            timeout => seconds(config.timeout),
            max_body => config.max_body,
            buffer => config.max_body.max(BUFFER),
            secrets,
        },
    )?;
    Ok(yaml)
}

/// What Envoy reads from a file again when it changes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Secret {
    /// The certificate that the edge shows to roles, and its key.
    Edge,
    /// The authority of the certificates of roles.
    Authority,
}

/// A file of `EDGE_SECRETS_DIRECTORY`: a response of Envoy's secret discovery service.
pub fn render_secret(secret: Secret, tls: &Tls) -> Result<String, Error> {
    let name = match secret {
        Secret::Edge => "edge",
        Secret::Authority => "authority",
    };
    let folder = absolute("SOUK_TLS_DIRECTORY", &tls.directory)?;
    Ok(environment().render_str(include_str!("../secret.yaml.j2"), context! { name, folder })?)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
}

/// Envoy may run in another folder than we.
fn absolute(variable: &'static str, path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::Path { variable, path: path.to_owned(), error })
}

fn clusters(config: &Config, rpcs: &[routes::Rpc]) -> Result<Vec<Cluster>, Error> {
    let roles = &config.endpoints.0;
    if let Some(rpc) = rpcs.iter().find(|rpc| !roles.iter().any(|(role, _)| role.name == rpc.cluster)) {
        return Err(Error::NoEndpoints(rpc.cluster.clone()));
    }
    let mut clusters = Vec::new();
    for (role, endpoints) in roles {
        let first = rpcs.iter().find(|rpc| rpc.cluster == role.name).map(|rpc| rpc.service.clone());
        let variable = endpoints::variable(*role);
        let endpoints = endpoints.iter().map(|it| endpoint(&variable, it)).collect::<Result<Vec<_>, _>>()?;
        let numeric = endpoints.iter().all(|endpoint| endpoint.host.parse::<std::net::IpAddr>().is_ok());
        let r#type = if numeric { "STATIC" } else { "STRICT_DNS" };
        clusters.push(Cluster { name: role.name, endpoints, r#type, health: first.unwrap_or_default() });
    }
    Ok(clusters)
}

fn endpoint(variable: &str, text: &str) -> Result<Endpoint, Error> {
    let refuse = || Error::Endpoint { variable: variable.to_owned(), value: text.to_owned() };
    let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
    // An IPv6 address with a port needs brackets.
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bracketed {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it)),
    };
    let port = port.parse().ok().filter(|port| *port != 0 && is_host).ok_or_else(refuse)?;
    Ok(Endpoint { host: bracketed.unwrap_or(host).to_owned(), port })
}

/// Envoy takes 0 for no timeout, and fills token buckets every 50 ms at the most.
fn parse_time(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
    if duration < Duration::from_millis(50) { Err(format!("`{text}` is below 50ms")) } else { Ok(duration) }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_time(text)?;
    let most = DEFAULT_DEADLINE;
    if timeout > most { Err(format!("`{text}` is above {most:?}")) } else { Ok(timeout) }
}

/// The bounds of a client's deadline, as `headers.lua` reads them.
fn deadlines(timeout: Duration) -> String {
    let (floor, ceiling) = (DEADLINE_FLOOR.min(timeout).as_millis(), timeout.as_millis());
    format!("local deadlines = {{floor = {floor}, ceiling = {ceiling}}}\n")
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests;
