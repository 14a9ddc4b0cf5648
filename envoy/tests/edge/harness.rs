//! Starts an Envoy on free ports for one test, and calls it as clients do.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use chassis::tls::{Certificates, Identity, Mode, Tls};
use clap::Parser;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Child;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::upstream::{self, Upstream};

const PATIENCE: Duration = Duration::from_secs(30);
/// No server listens there.
pub(crate) const NOWHERE: &str = "127.0.0.1:1";
pub(crate) const SHOP: &str = "https://shop.example";

pub(crate) struct Edge {
    pub(crate) upstream: Upstream,
    pub(crate) address: SocketAddr,
    key: EncodingKey,
    admin: String,
    client: reqwest::Client,
    /// The address of the client.
    pub(crate) source: IpAddr,
    folder: Folder,
    _envoy: Child,
}

pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // If it fails, a few temporary files stay.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: chassis::boot::Prefixed<edge::Config>,
}

/// The configuration with these settings.
pub(crate) fn render(settings: &[&str]) -> String {
    let cli = Cli::parse_from([&["edge"], settings].concat());
    edge::render(&cli.config, contracts::DESCRIPTORS).expect("the settings are good")
}

pub(crate) fn envoy() -> PathBuf {
    let path = std::env::var_os("SOUK_ENVOY");
    path.map(PathBuf::from).expect("SOUK_ENVOY names the program envoy 1.40, as `make test` does")
}

/// Envoy's error about an invalid configuration.
pub(crate) fn validate(yaml: &str) -> Result<(), String> {
    let folder = make_folder();
    let command = Command::new(envoy()).args(["--mode", "validate", "-c"]).arg(write(&folder.0, yaml)).output();
    let output = command.expect("SOUK_ENVOY can be run");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

pub(crate) fn make_folder() -> Folder {
    let folder = std::env::temp_dir().join(format!("souk-edge-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    Folder(folder)
}

fn write(folder: &Path, yaml: &str) -> PathBuf {
    let path = folder.join("envoy.yaml");
    std::fs::write(&path, yaml).expect("the folder is ours");
    path
}

/// Between the edge and roles, which most tests are not about.
const MESH: &[&str] = &["--souk-tls-mode=mesh"];

impl Edge {
    /// All roles are the same upstream, unless the settings have other endpoints.
    pub(crate) async fn start(settings: &[&str]) -> Edge {
        Self::start_with(&[MESH, settings].concat(), upstream::mesh()).await
    }

    /// Roles have the certificate of `party` in the folder `pki`, and the edge has its own there.
    pub(crate) async fn start_mutual(pki: &Path, party: &'static str) -> Edge {
        let tls = Tls { mode: Mode::Mutual, mesh_prefix: None, directory: pki.to_owned(), callers: vec![] };
        let secrets = pki.join("secrets");
        std::fs::create_dir(&secrets).expect("the folder is ours");
        for (name, secret) in [("edge", edge::Secret::Edge), ("authority", edge::Secret::Authority)] {
            let yaml = edge::render_secret(secret, &tls).expect("a path");
            std::fs::write(secrets.join(format!("{name}.yaml")), yaml).expect("the folder is ours");
        }
        let identity = Certificates::new(&tls).of(party).expect("the certificate is good");
        Self::start_with(&[&format!("--edge-secrets-directory={}", secrets.display())], identity).await
    }

    async fn start_with(settings: &[&str], identity: Identity) -> Edge {
        let key = make_key();
        let upstream = upstream::start(Some(publish(&key)), None, identity).await;
        Self::start_before(upstream, key, make_address(), settings).await
    }

    /// With the gateway's limits, counted in Redis. Waiting for them is not limited by what is usual on a fast machine.
    pub(crate) async fn start_counting(settings: &[&str]) -> Edge {
        let (key, settings) = (make_key(), [MESH, settings, &["--edge-limits-timeout=30s"]].concat());
        let upstream = upstream::start(Some(publish(&key)), Some(limits(&settings).await), upstream::mesh()).await;
        Self::start_before(upstream, key, make_address(), &settings).await
    }

    /// Another Envoy before the same upstream, called by the same client.
    pub(crate) async fn start_another(&self, settings: &[&str]) -> Edge {
        let settings = [MESH, settings, &["--edge-limits-timeout=30s"]].concat();
        Self::start_before(self.upstream.clone(), self.key.clone(), self.source, &settings).await
    }

    /// Before a user service that has no keys of access tokens.
    pub(crate) async fn start_without_keys() -> Edge {
        let upstream = upstream::start(None, None, upstream::mesh()).await;
        Self::start_before(upstream, make_key(), make_address(), MESH).await
    }

    /// With a configuration that was changed after it was rendered.
    pub(crate) async fn start_changed(change: impl Fn(String) -> String) -> Edge {
        let key = make_key();
        let upstream = upstream::start(Some(publish(&key)), None, upstream::mesh()).await;
        Self::start_changed_before(upstream, key, make_address(), MESH, change).await
    }

    async fn start_before(upstream: Upstream, key: EncodingKey, source: IpAddr, settings: &[&str]) -> Edge {
        Self::start_changed_before(upstream, key, source, settings, |yaml| yaml).await
    }

    async fn start_changed_before(
        upstream: Upstream,
        key: EncodingKey,
        source: IpAddr,
        settings: &[&str],
        change: impl Fn(String) -> String,
    ) -> Edge {
        let grpc = upstream.grpc.to_string();
        let mut all = vec!["--edge-listen=127.0.0.1:0".to_owned(), "--edge-admin-listen=127.0.0.1:0".to_owned()];
        all.push(format!("--edge-cors-origins={SHOP}"));
        for role in roster::ROLES {
            let name = format!("--edge-{}-endpoints=", role.name);
            if !settings.iter().any(|setting| setting.starts_with(&name)) {
                all.push(name + &grpc);
            }
        }
        let all: Vec<&str> = all.iter().map(String::as_str).chain(settings.iter().copied()).collect();

        let folder = make_folder();
        let log = std::fs::File::create(folder.0.join("log")).expect("the folder is ours");
        let envoy = tokio::process::Command::new(envoy())
            .arg("-c")
            .arg(write(&folder.0, &change(render(&all))))
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .args(["--file-flush-interval-msec", "50", "--admin-address-path"])
            .arg(folder.0.join("admin"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        let envoy = envoy.expect("SOUK_ENVOY can be run");
        let client = reqwest::Client::builder().local_address(source).build().expect("a client");
        let (admin, address) = find_ports(&client, &folder.0).await;
        let has_keys = upstream.has_keys;
        let edge = Edge { upstream, address, key, admin, client, source, folder, _envoy: envoy };
        // Envoy fetches them once the user service is healthy, and again a second after it failed.
        if has_keys {
            wait("the keys", async || {
                (edge.statistic("http.edge.jwt_authn.jwks_fetch_success").await > 0).then_some(())
            })
            .await;
        }
        edge
    }

    pub(crate) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address is a URL");
        endpoint.local_address(Some(self.source)).connect_lazy()
    }

    /// A customer's access token.
    pub(crate) fn token(&self) -> String {
        self.sign(json!({}))
    }

    /// An access token with these claims changed; null removes one.
    pub(crate) fn sign(&self, claims: Value) -> String {
        sign(&self.key, claims)
    }

    /// A request to sign in, to be sent.
    pub(crate) fn login(&self) -> reqwest::RequestBuilder {
        let credentials = json!({"email": "a@example.com", "password": "a long enough one"});
        self.client.post(format!("http://{}/v1/sessions", self.address)).body(credentials.to_string())
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> RestResponse {
        self.call(Method::GET, path, &[("authorization", &format!("Bearer {token}"))], None).await
    }

    /// A response that may never end.
    pub(crate) async fn open(&self, path: &str, token: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.get(format!("http://{}{path}", self.address)).bearer_auth(token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("Envoy responds")
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: impl Into<reqwest::Body>) -> RestResponse {
        let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "application/json")];
        self.call(Method::POST, path, &headers, Some(body.into())).await
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<reqwest::Body>,
    ) -> RestResponse {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.expect("Envoy responds");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        RestResponse {
            status,
            headers: headers.collect(),
            body: response.text().await.expect("the response is complete"),
        }
    }

    /// Sends these bytes over a new connection, and returns all that Envoy sends before it closes it.
    pub(crate) async fn send_raw(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.expect("Envoy listens");
        connection.write_all(request.as_bytes()).await.expect("Envoy reads");
        let mut response = Vec::new();
        let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut response)).await;
        read.expect("Envoy closes the connection").expect("the response is complete");
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Sends these bytes over a new connection from the client's address, and returns the first that Envoy sends: nothing if it
    /// closes the connection instead.
    pub(crate) async fn send_from(&self, source: IpAddr, request: &str) -> String {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source, 0)).expect("an address of this machine");
        let mut connection = socket.connect(self.address).await.expect("Envoy listens");
        let mut response = vec![0; 1 << 16];
        let exchange = async {
            connection.write_all(request.as_bytes()).await?;
            connection.read(&mut response).await
        };
        let read = tokio::time::timeout(PATIENCE, exchange).await.expect("Envoy responds or closes the connection");
        // It may close before it has read the request.
        String::from_utf8_lossy(&response[..read.unwrap_or(0)]).into_owned()
    }

    /// The address of a listener.
    pub(crate) async fn find_listener(&self, name: &str) -> SocketAddr {
        find_listener(&self.client, &self.admin, name).await
    }

    /// A page of Envoy's admin interface.
    pub(crate) async fn ask_admin(&self, path: &str) -> Value {
        let response = self.client.get(format!("http://{}{path}", self.admin)).send().await.expect("it responds");
        response.json().await.expect("it responds with JSON")
    }

    /// A statistic of Envoy.
    pub(crate) async fn statistic(&self, name: &str) -> u64 {
        let page = self.ask_admin(&format!("/stats?format=json&filter={name}")).await;
        let found = page["stats"].as_array().into_iter().flatten().find(|it| it["name"] == name);
        found.and_then(|it| it["value"].as_u64()).unwrap_or_default()
    }

    /// Envoy's log so far.
    pub(crate) fn read_log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).expect("the folder is ours")
    }

    pub(crate) async fn find_in_log(&self, text: &str) {
        wait(&format!("a line with {text}"), async || self.read_log().contains(text).then_some(())).await;
    }
}

/// An address of this machine for one test, as the counts of other tests are in the same Redis.
pub(crate) fn make_address() -> IpAddr {
    let [.., a, b, c] = *Uuid::now_v7().as_bytes();
    Ipv4Addr::new(127, a, b, c.clamp(2, 254)).into()
}

/// The gateway's service with the limits that the settings of the edge have.
async fn limits(settings: &[&str]) -> gateway::Server {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        limits: chassis::boot::Prefixed<gateway::Limits>,
        #[command(flatten)]
        redis: chassis::boot::Prefixed<chassis::redis::Config>,
    }
    let server = std::env::var("SOUK_TEST_REDIS").expect("SOUK_TEST_REDIS is the URL of a Redis, as in `make test`");
    let server = format!("--souk-redis-url={server}");
    let limits = settings.iter().copied().filter(|setting| setting.starts_with("--souk-limit-"));
    let cli = Cli::parse_from(["gateway", &server, "--souk-redis-timeout=30s"].into_iter().chain(limits));
    let redis = chassis::redis::Redis::new(&cli.redis).expect("a good URL");
    tokio::spawn(redis.clone().run(Default::default()));
    redis.connected().await.expect("it connects");
    gateway::rate_limits(&redis, &cli.limits)
}

/// Reads from Envoy which free ports it chose.
async fn find_ports(client: &reqwest::Client, folder: &Path) -> (String, SocketAddr) {
    let admin = async || {
        let admin = std::fs::read_to_string(folder.join("admin")).ok()?;
        let ready = client.get(format!("http://{admin}/ready")).send().await.ok()?;
        ready.error_for_status().ok().map(|_| admin)
    };
    let log = folder.join("log");
    let admin = wait(&format!("a ready Envoy, see {}", log.display()), admin).await;
    let address = find_listener(client, &admin, "edge").await;
    (admin, address)
}

async fn find_listener(client: &reqwest::Client, admin: &str, name: &str) -> SocketAddr {
    let listeners = client.get(format!("http://{admin}/listeners?format=json")).send().await.expect("it responds");
    let listeners: Value = listeners.json().await.expect("it responds with JSON");
    let listener = listeners["listener_statuses"].as_array().into_iter().flatten().find(|it| it["name"] == name);
    let port = listener.and_then(|it| it["local_address"]["socket_address"]["port_value"].as_u64());
    let port = port.and_then(|port| u16::try_from(port).ok()).expect("it listens");
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) async fn wait<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "after {PATIENCE:?} there is not: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn make_key() -> EncodingKey {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    EncodingKey::from_ec_der(key.expect("a key can be made").as_ref())
}

pub(crate) fn publish(key: &EncodingKey) -> JwkSet {
    let mut key = Jwk::from_encoding_key(key, Algorithm::ES256).expect("the key is an EC key");
    key.common.key_id = Some("test".to_owned());
    JwkSet { keys: vec![key] }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

pub(crate) fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://souk.local", "aud": "souk", "sub": Uuid::now_v7(), "sid": Uuid::now_v7(), "role": "customer",
        "iat": now(), "exp": now() + 300,
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let kept = claims.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub(crate) fn sign(key: &EncodingKey, changes: Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some("test".to_owned());
    jsonwebtoken::encode(&header, &claims(changes), key).expect("claims can be signed")
}

/// A request over gRPC with this access token.
pub(crate) fn signed<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a token is visible text"));
    request
}

/// The response to a REST request.
#[derive(Debug)]
pub(crate) struct RestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl RestResponse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The edge refused it, with this code and reason.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: Code, reason: &str) {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_i64()), (status, Some(code as i64)), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "it says why: {self:?}");
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "souk.edge",
        });
        assert_eq!(body["details"][0], info, "{self:?}");
    }

    /// The edge refused it, for this field of the request.
    #[track_caller]
    pub(crate) fn assert_invalid(&self, field: &str) {
        self.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        let details = &self.json()["details"][1];
        assert_eq!(details["@type"], "type.googleapis.com/google.rpc.BadRequest", "{self:?}");
        let violation = &details["fieldViolations"][0];
        assert_eq!(violation["field"], field, "{self:?}");
        let message = format!("{field}: {}", violation["description"].as_str().expect("it says what is wrong"));
        assert_eq!(self.json()["message"], message, "{self:?}");
    }

    /// The edge refused it, for the body as a whole.
    #[track_caller]
    pub(crate) fn assert_malformed(&self) {
        self.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(self.json()["details"][1], Value::Null, "{self:?}");
    }
}

/// The edge refused a gRPC call, with this code and reason.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(response: Result<T, Status>, code: Code, reason: &str) {
    let status = response.expect_err(reason);
    assert_eq!((status.code(), find_reason(&status)), (code, format!("{reason}@souk.edge")), "{status:?}");
    assert!(!status.message().is_empty(), "it says why: {status:?}");
}

/// Such as `TOKEN_MISSING@souk.edge`, or nothing.
pub(crate) fn find_reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| format!("{}@{}", info.reason, info.domain)).unwrap_or_default()
}
