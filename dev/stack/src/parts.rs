//! How each server is started: Postgres, Redis, Kafka, the payment provider, the mail server, `souk`, Envoy.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::install;
use crate::kafka;
use crate::keys;
use crate::layout::Layout;
use crate::pki;
use crate::postgres::{self, Access, Fsync};
use crate::supervisor::{Ready, Spec, Supervisor};

const EDGE_SERVES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// Without persistence: it holds only counters of limits, and products that were read.
pub fn redis(layout: &Layout) -> Spec {
    let port = layout.ports.redis();
    let number = port.to_string();
    let settings = [
        ("--port", number.as_str()),
        ("--bind", "127.0.0.1"),
        ("--save", ""),
        ("--appendonly", "no"),
        // When it is full, what would expire first is lost instead of all calls failing. Products fill four fifths of it at most.
        ("--maxmemory", "64mb"),
        ("--maxmemory-policy", "volatile-ttl"),
    ];
    Spec {
        name: "redis",
        program: install::REDIS.into(),
        arguments: settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect(),
        environment: vec![],
        user: None,
        port,
        ready: Ready::Listening,
        log: layout.log("redis"),
        stop: Signal::TERM,
        lock: None,
    }
}

fn provider(layout: &Layout) -> Result<Spec> {
    let (port, data) = (layout.ports.provider(), layout.home.join("provider"));
    let (listen, sms) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", layout.ports.sms()));
    let webhooks = format!("http://127.0.0.1:{}/v1/payments/webhooks/stripe", layout.ports.edge());
    let (data, secret) = (data.to_string_lossy(), layout.home.join("keys/webhook.key"));
    let secret = secret.to_string_lossy();
    let webhooks = ["--webhook-url", &webhooks, "--webhook-secret-file", &secret];
    let arguments = [&["--listen", &listen, "--sms-listen", &sms, "--data", &data], &webhooks[..]].concat();
    Ok(Spec {
        name: "provider",
        program: layout.program("provider"),
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        environment: vec![],
        user: None,
        port,
        ready: Ready::Listening,
        log: layout.log("provider"),
        stop: Signal::TERM,
        lock: None,
    })
}

/// A mail server that delivers nothing, and shows the last mails on a page.
pub fn mail(layout: &Layout) -> Result<Spec> {
    let [script, folder] =
        [install::maildev(&layout.tools), layout.mails()].map(|path| path.to_string_lossy().into_owned());
    std::fs::create_dir_all(&folder)?;
    let (smtp, page) = (layout.ports.mail().to_string(), layout.ports.mail_page().to_string());
    let addresses = ["--smtp", &smtp, "--ip", "127.0.0.1", "--web", &page, "--web-ip", "127.0.0.1"];
    let arguments = [&[script.as_str()], &addresses[..], &["--max-emails", "1000"]];
    Ok(Spec {
        name: "mail",
        program: install::node(&layout.tools)?,
        arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
        // Not its `--mail-directory`: with one it accepts mails before it has read the old ones, and when it has a thousand then, it
        // drops the new ones.
        environment: vec![("TMPDIR".to_owned(), folder)],
        user: None,
        // It listens for mails before it serves the page.
        port: layout.ports.mail_page(),
        ready: Ready::Listening,
        log: layout.log("mail"),
        stop: Signal::TERM,
        lock: None,
    })
}

/// stripe-mock checks requests against Stripe's schema. It insists on an HTTPS port, which is not used.
pub fn stripe_mock(layout: &Layout, program: PathBuf) -> Spec {
    let port = layout.ports.stripe();
    let listen = format!("127.0.0.1:{port}");
    Spec {
        name: "stripe-mock",
        program,
        arguments: ["-http-addr", &listen, "-https-addr", "127.0.0.1:"].map(str::to_owned).to_vec(),
        environment: vec![],
        user: None,
        port,
        ready: Ready::Listening,
        log: layout.log("stripe-mock"),
        stop: Signal::TERM,
        lock: None,
    }
}

/// The settings of `souk`, for all of its commands.
pub fn environment(layout: &Layout) -> Vec<(String, String)> {
    let ports = layout.ports;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let keys = layout.home.join("keys");
    let mut all = vec![
        ("SOUK_ADMIN_LISTEN".to_owned(), local(ports.admin())),
        ("SOUK_USER_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::USER)))),
        ("SOUK_KAFKA_BROKERS".to_owned(), local(ports.kafka())),
        ("SOUK_REDIS_URL".to_owned(), redis_url(layout)),
        ("SOUK_TLS_DIRECTORY".to_owned(), layout.pki.to_string_lossy().into_owned()),
        // With `grpcurl`, and in tests.
        ("SOUK_TLS_CALLERS".to_owned(), "dev".to_owned()),
        ("SOUK_INSTANCE".to_owned(), "one".to_owned()),
        ("USER_MAIL_KEY_FILE".to_owned(), keys.join("mail.key").to_string_lossy().into_owned()),
        ("USER_SIGNING_KEY_FOLDER".to_owned(), keys.join("access").to_string_lossy().into_owned()),
        ("PAYMENT_PROVIDER_KEY_FILE".to_owned(), keys.join("provider.key").to_string_lossy().into_owned()),
        ("PAYMENT_WEBHOOK_SECRET_FILE".to_owned(), keys.join("webhook.key").to_string_lossy().into_owned()),
        ("PAYMENT_PROVIDER_URL".to_owned(), format!("http://{}", local(ports.provider()))),
        // The simulator has no limit, unless a test sets one.
        ("PAYMENT_PROVIDER_RATE".to_owned(), "2000".to_owned()),
        ("SOUK_CHECK_PROVIDER_URL".to_owned(), format!("http://{}", local(ports.provider()))),
        ("EDGE_SECRETS_DIRECTORY".to_owned(), layout.envoy().to_string_lossy().into_owned()),
        ("ORDER_PRODUCT_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::PRODUCT)))),
        ("PRODUCT_INVENTORY_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::INVENTORY)))),
        ("INVENTORY_ORDER_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::ORDER)))),
        ("PAYMENT_ORDER_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::ORDER)))),
        ("NOTIFICATION_SMTP_PORT".to_owned(), ports.mail().to_string()),
        ("NOTIFICATION_SMTP_SECURITY".to_owned(), "plain".to_owned()),
        // Ours examines nothing. What a killed replica has claimed is due again a quarter of a minute after these.
        ("NOTIFICATION_SMTP_TIMEOUT".to_owned(), "5s".to_owned()),
        ("NOTIFICATION_SMTP_ACCEPT_TIMEOUT".to_owned(), "15s".to_owned()),
        ("NOTIFICATION_SMS_URL".to_owned(), format!("http://{}", local(ports.sms()))),
        ("NOTIFICATION_SMS_ACCOUNT".to_owned(), "ACsouk".to_owned()),
        // The simulator accepts any token.
        ("NOTIFICATION_SMS_TOKEN_FILE".to_owned(), keys.join("provider.key").to_string_lossy().into_owned()),
        ("NOTIFICATION_SMS_SENDER".to_owned(), "+15005550006".to_owned()),
        ("NOTIFICATION_USER_URL".to_owned(), format!("https://{}", local(ports.grpc(roster::USER)))),
        ("EDGE_LISTEN".to_owned(), local(ports.edge())),
        ("EDGE_TLS_LISTEN".to_owned(), local(ports.edge_tls())),
        ("EDGE_ADMIN_LISTEN".to_owned(), local(ports.envoy_admin())),
    ];
    for role in roster::ROLES {
        all.push((role.variable("listen"), local(ports.grpc(role))));
        all.push((format!("EDGE_{}", role.variable("endpoints")), local(ports.grpc(role))));
    }
    let ca = layout.pki.join("ca.crt");
    all.extend(database_urls(layout, &format!("sslrootcert={}", ca.display())));
    for (prefix, role) in database_roles() {
        let file = layout.password_file(&role).to_string_lossy().into_owned();
        all.push((format!("{prefix}_DATABASE_PASSWORD_FILE"), file));
    }
    all
}

/// The role of each service in its database, and that of the administrator, with the prefix of their settings.
fn database_roles() -> impl Iterator<Item = (String, String)> {
    let services = roster::services().map(|role| (role.name.to_uppercase(), format!("souk_{}", role.name)));
    services.chain([("SOUK_MIGRATE".to_owned(), postgres::ADMINISTRATOR.to_owned())])
}

fn database_urls(layout: &Layout, parameters: &str) -> impl Iterator<Item = (String, String)> {
    let port = layout.ports.postgres();
    database_roles().map(move |(prefix, role)| {
        let url = format!("postgres://{role}@127.0.0.1:{port}/{role}?{parameters}");
        (format!("{prefix}_DATABASE_URL"), url)
    })
}

/// The settings of `souk` for Kafka and Postgres in plain text, where they trust everybody.
pub(crate) fn trusting(layout: &Layout) -> Vec<(String, String)> {
    let kafka = ("SOUK_KAFKA_SECURITY".to_owned(), "plain".to_owned());
    database_urls(layout, "sslmode=disable").chain([kafka]).collect()
}

pub fn redis_url(layout: &Layout) -> String {
    format!("redis://127.0.0.1:{}", layout.ports.redis())
}

/// Runs one of `souk`'s commands to its end, and returns its output.
pub async fn souk(layout: &Layout, settings: &[(String, String)], arguments: &[&str]) -> Result<Vec<u8>> {
    let program = layout.program("souk");
    let mut command = Command::new(&program);
    command.args(arguments).envs(environment(layout)).envs(settings.to_vec()).stdin(Stdio::null());
    let output = command.output().await.with_context(|| format!("{} cannot be run", program.display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`souk {}` failed ({}):\n{}", arguments.join(" "), output.status, String::from_utf8_lossy(&said));
    }
    Ok(output.stdout)
}

/// For tests and benchmarks, whose customers share one address, and some of them one account.
pub fn wide_limits() -> Vec<(String, String)> {
    let users = ["CUSTOMER_READ", "CUSTOMER_WRITE", "OPERATOR_READ", "OPERATOR_WRITE"];
    let classes = ["READ", "WRITE", "CONNECTION"].into_iter().chain(users);
    let rates = classes.flat_map(|class| ["RATE", "BURST"].map(|limit| format!("{class}_{limit}")));
    let limits = rates.chain(["ACCOUNT_COUNT".to_owned()]);
    let limits = limits.map(|limit| (format!("SOUK_LIMIT_{limit}"), "100000".to_owned()));
    limits.chain([("NOTIFICATION_PER_USER_AND_HOUR".to_owned(), "0".to_owned())]).collect()
}

/// Starts what `souk` depends on: Postgres, Redis, Kafka, the payment provider and the mail server, with all databases and topics.
pub async fn start_dependencies(
    layout: &Layout,
    supervisor: &mut Supervisor,
    fsync: Fsync,
    access: Access,
    settings: &[(String, String)],
    say: &dyn Fn(&str),
) -> Result<()> {
    keys::make(&layout.home.join("keys"))?;
    pki::ensure(&layout.pki)?;
    say("starting Postgres, Redis, Kafka, the payment provider and the mail server");
    let kafka = async {
        match access {
            Access::Trusted => kafka::plain(layout).await,
            Access::Secured | Access::Passwords => kafka::secured(layout).await,
        }
    };
    let (postgres, kafka) = tokio::try_join!(postgres::of_stack(layout, fsync, access), kafka)?;
    supervisor.start(postgres).await?;
    supervisor.start(redis(layout)).await?;
    supervisor.start(kafka).await?;
    supervisor.start(provider(layout)?).await?;
    supervisor.start(mail(layout)?).await?;
    say("migrating databases and topics");
    souk(layout, settings, &["migrate"]).await.map(drop)
}

/// Starts all servers in the order of their dependencies. `settings` are added to the environment of `souk`.
pub async fn start_all(
    layout: &Layout,
    supervisor: &mut Supervisor,
    fsync: Fsync,
    access: Access,
    settings: &[(String, String)],
    say: &dyn Fn(&str),
) -> Result<()> {
    start_dependencies(layout, supervisor, fsync, access, settings, say).await?;
    say("starting souk and Envoy");
    supervisor.start(serve(layout, "souk", "all", layout.ports.admin(), settings)).await?;
    supervisor.start(envoy(layout, settings).await?).await
}

/// A process of `souk` for one role or `all`. `settings` replace those of every stack.
pub fn serve(layout: &Layout, name: &'static str, role: &str, admin: u16, settings: &[(String, String)]) -> Spec {
    let listen = ("SOUK_ADMIN_LISTEN".to_owned(), format!("127.0.0.1:{admin}"));
    Spec {
        name,
        program: layout.program("souk"),
        arguments: vec![role.to_owned()],
        environment: [environment(layout), vec![listen], settings.to_vec()].concat(),
        user: None,
        port: admin,
        ready: Ready::ReportsReady,
        log: layout.log(name),
        stop: Signal::TERM,
        lock: None,
    }
}

/// Envoy, with the configuration that `souk envoy` prints.
pub async fn envoy(layout: &Layout, settings: &[(String, String)]) -> Result<Spec> {
    let folder = layout.envoy();
    souk(layout, settings, &["envoy", "--directory", &folder.to_string_lossy()]).await?;
    envoy_with(layout, "envoy", &folder.join("envoy.yaml"), layout.ports.edge())
}

/// An Envoy with this configuration, which listens on `port`.
pub fn envoy_with(layout: &Layout, name: &'static str, configuration: &Path, port: u16) -> Result<Spec> {
    // Hot restart would use an id that is unique on this machine, which two stacks would share.
    let file = configuration.to_string_lossy();
    let arguments = ["--disable-hot-restart", "-c", &file, "--concurrency", "2", "--log-level", "warning"];
    Ok(Spec {
        name,
        program: install::envoy(&layout.tools)?,
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: vec![],
        user: None,
        port,
        ready: Ready::Listening,
        log: layout.log(name),
        stop: Signal::TERM,
        lock: None,
    })
}

/// Waits until the edge sends requests to every replica, which it does a moment after the replica reported ready, and has the keys
/// of access tokens.
pub async fn edge_serves(layout: &Layout) -> Result<()> {
    let admin = format!("http://127.0.0.1:{}", layout.ports.envoy_admin());
    let begun = Instant::now();
    while let Some(missing) = missing_at_edge(&admin).await? {
        ensure!(begun.elapsed() < EDGE_SERVES_WITHIN, "the edge does not serve: {missing}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

async fn missing_at_edge(admin: &str) -> Result<Option<String>> {
    let read = async |page: &str| -> Result<Value> {
        Ok(serde_json::from_str(&reqwest::get(format!("{admin}{page}")).await?.text().await?)?)
    };
    let page = read("/clusters?format=json").await?;
    let clusters = page["cluster_statuses"].as_array().into_iter().flatten();
    let mut replicas = clusters.filter_map(|cluster| cluster["host_statuses"].as_array()).flatten();
    // Beside the status from service discovery, this has only reasons why a replica gets no requests.
    if let Some(away) = replicas.find(|it| it["health_status"].as_object().is_some_and(|health| health.len() > 1)) {
        return Ok(Some(format!("it sends no requests to {}", away["address"])));
    }
    let page = read("/stats?format=json&filter=jwt_authn.jwks_fetch_success").await?;
    let mut fetched = page["stats"].as_array().into_iter().flatten().filter_map(|it| it["value"].as_u64());
    Ok((!fetched.any(|count| count > 0)).then(|| "it has no keys of access tokens".to_owned()))
}

/// Whether a process listens on a port.
pub fn answers(port: u16) -> bool {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)).is_ok()
}
