//! Two replicas of every role, and three of the product service, each a process, behind Envoy; and proxies that inject faults:
//! between each replica and its database, before each replica of the product service, before the order service, for product before
//! the inventory service, for notification before the user service, and before the payment provider, the mail server and the provider
//! of text messages.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use roster::Role;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use time::OffsetDateTime;

use super::LOOK_AGAIN;
use super::backlog::Backlog;
use super::certificates::SIGNING_KEY_LEAD;
use super::deliveries::{Accepted, Kind};
use super::proxy::{Mode, Proxy};
use super::tls::Interceptor;
use stack::client::{Client, random_password};
use stack::kafka;
use stack::layout::Layout;
use stack::parts;
use stack::postgres::{ADMINISTRATOR, Access, Fsync};
use stack::supervisor::{Command, Supervisor};
use stack::up::create_operator;

/// How many replicas a role has.
fn count(role: Role) -> u16 {
    if role == roster::PRODUCT { 3 } else { 2 }
}

/// The names of a role's replicas, such as `order-1`. They are made once, and live as long as the process.
pub(crate) fn replicas(role: Role) -> &'static [&'static str] {
    static NAMES: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
        let name = |role: Role, replica| &*format!("{}-{replica}", role.name).leak();
        roster::ROLES.map(|role| (role.name, (1..=count(role)).map(|replica| name(role, replica)).collect())).into()
    });
    &NAMES[role.name]
}

/// The replicas of all roles.
pub(crate) fn all_replicas() -> impl Iterator<Item = &'static str> {
    roster::ROLES.into_iter().flat_map(replicas).copied()
}

const OPERATOR: &str = "operator@souk.test";
/// The condition that an order has neither ended nor been paid.
const UNFINISHED: &str = "(state in ('PENDING', 'RESERVED') or (state = 'CONFIRMED' and not captured))";
/// A replica loses the relay's lock three seconds after its session fell silent; the rest is for a slow machine.
const LEADS_WITHIN: Duration = Duration::from_secs(60);

/// Files are read every two seconds; the rest is for a slow machine.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) layout: Layout,
    supervisor: Supervisor,
    settings: Vec<(String, String)>,
    /// The proxy before the database, for each replica that has one.
    databases: Vec<(&'static str, Proxy)>,
    /// Before each replica of the product service.
    pub(crate) products: Vec<Proxy>,
    /// Before each replica of the inventory service, for the product service.
    pub(crate) stocks: Vec<Proxy>,
    pub(crate) order: Proxy,
    pub(crate) provider: Proxy,
    /// Before the user service, for the notification service.
    pub(crate) contacts: Proxy,
    /// Before the mail server.
    pub(crate) mail: Proxy,
    pub(crate) mails: Accepted,
    /// Before the provider of text messages.
    pub(crate) sms: Proxy,
    pub(crate) texts: Accepted,
    password: String,
}

impl Cluster {
    /// Starts everything, with new databases and topics.
    pub(crate) async fn start(layout: Layout, fsync: Fsync, say: &dyn Fn(&str)) -> Result<Self> {
        layout.ports.check_free()?;
        if layout.home.exists() {
            std::fs::remove_dir_all(&layout.home)?;
        }
        let ports = layout.ports;
        let all = |role| (1..=count(role)).map(move |replica| ports.grpc_of(role, replica));
        stack::pki::ensure(&layout.pki)?;
        let mut products = Vec::new();
        for replica in all(roster::PRODUCT) {
            let quotes = Interceptor::new(&layout.pki, roster::ORDER, roster::PRODUCT)?;
            products.push(Proxy::open(vec![replica], Some(quotes)).await?);
        }
        let mut stocks = Vec::new();
        for replica in all(roster::INVENTORY) {
            stocks.push(Proxy::open(vec![replica], None).await?);
        }
        let (mails, texts) = (Accepted::new(Kind::Mail), Accepted::new(Kind::Text));
        let mut cluster = Self {
            products,
            stocks,
            order: Proxy::open(all(roster::ORDER).collect(), None).await?,
            provider: Proxy::open(vec![ports.provider()], None).await?,
            mail: Proxy::counting(ports.mail(), mails.clone()).await?,
            mails,
            sms: Proxy::counting(ports.sms(), texts.clone()).await?,
            texts,
            contacts: Proxy::open(all(roster::USER).collect(), None).await?,
            databases: vec![],
            settings: settings(&layout),
            supervisor: Supervisor::default(),
            password: random_password(),
            layout,
        };
        let (layout, settings) = (cluster.layout.clone(), cluster.settings.clone());
        parts::start_dependencies(&layout, &mut cluster.supervisor, fsync, Access::Passwords, &settings, say).await?;
        say("starting Envoy, and two or three replicas of every role");
        let envoy = parts::envoy(&layout, &settings).await?;
        cluster.supervisor.start(envoy).await?;
        // The user service first: roles wait for its keys.
        let others = roster::ROLES.into_iter().filter(|role| *role != roster::USER);
        for role in [roster::USER].into_iter().chain(others) {
            for replica in 1..=count(role) {
                cluster.start_replica(role, replica).await?;
            }
        }
        parts::edge_serves(&layout).await?;
        create_operator(&layout, &settings, OPERATOR, &cluster.password).await?;
        Ok(cluster)
    }

    async fn start_replica(&mut self, role: Role, replica: u16) -> Result<()> {
        let (layout, ports) = (&self.layout, self.layout.ports);
        let name = replicas(role)[usize::from(replica) - 1];
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut settings = self.settings.clone();
        let mut set = |name: String, value: String| settings.push((name, value));
        set(role.variable("listen"), local(ports.grpc_of(role, replica)));
        set("SOUK_INSTANCE".to_owned(), name.to_owned());
        let [products, stocks] =
            [&self.products, &self.stocks].map(|all| all.iter().map(|it| local(it.port)).collect::<Vec<_>>().join(","));
        for (variable, scheme, hosts) in [
            ("ORDER_PRODUCT_URL", "https", products),
            ("PRODUCT_INVENTORY_URL", "https", stocks),
            ("INVENTORY_ORDER_URL", "https", local(self.order.port)),
            ("PAYMENT_ORDER_URL", "https", local(self.order.port)),
            ("PAYMENT_PROVIDER_URL", "http", local(self.provider.port)),
            ("NOTIFICATION_USER_URL", "https", local(self.contacts.port)),
            ("NOTIFICATION_SMS_URL", "http", local(self.sms.port)),
        ] {
            set(variable.to_owned(), format!("{scheme}://{hosts}"));
        }
        set("NOTIFICATION_SMTP_PORT".to_owned(), self.mail.port.to_string());
        if role.has_database {
            let proxy = Proxy::open(vec![ports.postgres()], None).await?;
            let url = format!("postgres://souk_{0}@127.0.0.1:{1}/souk_{0}?sslmode=disable", role.name, proxy.port);
            set(role.variable("database_url"), url);
            self.databases.push((name, proxy));
        }
        let spec = parts::serve(layout, name, role.name, ports.admin_of(role, replica), &settings);
        self.supervisor.start(spec).await
    }

    /// Ends every fault, also one that failed midway: all processes run, and all proxies pass.
    pub(crate) async fn heal(&self) -> Result<()> {
        let databases = self.databases.iter().map(|(_, proxy)| proxy);
        let others = self.products.iter().chain(&self.stocks);
        let others = others.chain([&self.order, &self.provider, &self.contacts, &self.mail, &self.sms]);
        databases.chain(others).for_each(|proxy| proxy.set(Mode::Pass));
        for name in ["postgres", "redis", "kafka", "provider", "mail"].into_iter().chain(all_replicas()) {
            self.supervisor.send(name, Command::Start).await?;
            self.supervisor.send(name, Command::Resume).await?;
        }
        self.set_limits(&[]).await?;
        self.set_webhooks(&[]).await
    }

    pub(crate) async fn send(&self, name: &str, command: Command) -> Result<()> {
        self.supervisor.send(name, command).await.map(drop)
    }

    /// The proxy before the database of one replica.
    pub(crate) fn database(&self, replica: &str) -> Result<&Proxy> {
        let found = self.databases.iter().find(|(name, _)| *name == replica);
        found.map(|(_, proxy)| proxy).with_context(|| format!("{replica} has no database"))
    }

    /// Waits for the replica whose relay publishes the outbox of a service.
    pub(crate) async fn leader(&self, role: Role) -> Result<&'static str> {
        let begun = Instant::now();
        loop {
            for (&name, replica) in replicas(role).iter().zip(1..) {
                let page = self.metrics(role, replica).await?;
                if page.lines().any(|line| line.starts_with("souk_outbox_leader{") && line.ends_with(" 1")) {
                    return Ok(name);
                }
            }
            ensure!(begun.elapsed() < LEADS_WITHIN, "no replica publishes the outbox of {}", role.name);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn metrics(&self, role: Role, replica: u16) -> Result<String> {
        let port = self.layout.ports.admin_of(role, replica);
        Ok(reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?.text().await?)
    }

    /// Waits until a metric has such a value at all replicas of a role.
    pub(crate) async fn shows(&self, role: Role, metric: &str, is_it: impl Fn(i64) -> bool) -> Result<()> {
        for replica in 1..=count(role) {
            self.replica_shows((role, replica), metric, &is_it).await?;
        }
        Ok(())
    }

    /// Waits until a metric has such a value at one replica.
    pub(crate) async fn replica_shows(
        &self,
        (role, replica): (Role, u16),
        metric: &str,
        is_it: impl Fn(i64) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        let is_shown = |line: &str| line.strip_prefix(metric).and_then(|it| it.trim().parse().ok()).is_some_and(&is_it);
        while !self.metrics(role, replica).await?.lines().any(is_shown) {
            ensure!(begun.elapsed() < SHOWS_WITHIN, "{metric} of replica {replica} of {} is another", role.name);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Whether, while the broker is frozen, a relay has events that are not acknowledged, or has some within two seconds: events
    /// that are in the outbox for half a second, which is long enough to send them.
    pub(crate) async fn has_unacknowledged(&self, role: Role) -> Result<bool> {
        let query = "select count(*) from outbox where created_at < now() - interval '500 milliseconds'";
        let mut session = self.administrator(&format!("souk_{}", role.name)).await?;
        let begun = Instant::now();
        loop {
            let waiting: i64 = sqlx::query_scalar(query).fetch_one(&mut session).await?;
            if waiting > 0 || begun.elapsed() > Duration::from_secs(2) {
                session.close().await?;
                return Ok(waiting > 0);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The URL of one of the simulator's own pages, past the proxy.
    pub(super) fn provider_page(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.layout.ports.provider())
    }

    /// Units of one SKU: available, reserved, sold.
    pub(crate) async fn stock(&self, sku: &str) -> Result<(i64, i64, i64)> {
        let mut session = self.administrator("souk_inventory").await?;
        let units = sqlx::query_as("select available, reserved, sold from stock where sku = $1");
        let units = units.bind(sku).fetch_one(&mut session).await?;
        session.close().await?;
        Ok(units)
    }

    /// How many orders of before this time are neither paid nor ended, except those with slow payment methods.
    pub(crate) async fn unfinished(&self, before: OffsetDateTime) -> Result<i64> {
        let mut session = self.administrator("souk_order").await?;
        let open = AssertSqlSafe(format!(
            r#"select count(*) from "order" where created_at < $1 and payment_method like 'pm_card_%' and {UNFINISHED}"#
        ));
        let open = sqlx::query_scalar(open).bind(before).fetch_one(&mut session).await?;
        session.close().await?;
        Ok(open)
    }

    /// How many orders are paid, or have ended.
    pub(crate) async fn finished(&self) -> Result<i64> {
        self.count("souk_order", &format!(r#"select count(*) from "order" where not {UNFINISHED}"#)).await
    }

    /// How long each order since this time took until it was paid, except those that changed afterwards.
    pub(crate) async fn settling_times(&self, since: OffsetDateTime) -> Result<Vec<Duration>> {
        let mut session = self.administrator("souk_order").await?;
        let took = sqlx::query_scalar::<_, f64>(
            r#"select extract(epoch from updated_at - created_at)::float8 from "order"
               where created_at >= $1 and state = 'CONFIRMED' and captured and refunded_minor = 0
                 and payment_method = 'pm_card_visa'"#,
        );
        let took = took.bind(since).fetch_all(&mut session).await?;
        session.close().await?;
        Ok(took.into_iter().map(|seconds| Duration::from_secs_f64(seconds.max(0.0))).collect())
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.layout.ports.edge()).impatient()
    }

    pub(crate) async fn operator(&self) -> Result<Client> {
        Client::new(self.layout.ports.edge()).sign_in(OPERATOR, &self.password).await
    }

    /// An operator's account.
    pub(crate) fn credentials(&self) -> (&str, &str) {
        (OPERATOR, &self.password)
    }

    /// How often each process crashed although no fault killed it.
    pub(crate) fn crashes(&self) -> Vec<(&'static str, u32)> {
        self.supervisor.crashes()
    }

    /// An administrator's session, past all proxies.
    pub(crate) async fn administrator(&self, database: &str) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.layout.database(ADMINISTRATOR, database)?).await?)
    }

    pub(crate) async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        let mut session = self.administrator(database).await?;
        session.execute(AssertSqlSafe(sql.to_owned())).await?;
        Ok(session.close().await?)
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog> {
        // Counted before the orders, so that no reservation of a settled order is counted.
        let held = self.count("souk_inventory", "select count(*) from reservation where state = 'HELD'").await?;
        let payments = self.count("souk_payment", "select count(*) from payment where due_at is not null").await?;
        // Nothing is refused in a trial.
        let notifications = "select count(*) from notification
                             where due_at is not null or state in ('REFUSED', 'GIVEN_UP')";
        let notifications = self.count("souk_notification", notifications).await?;
        let mut unpublished = 0;
        for role in roster::services() {
            unpublished += self.count(&format!("souk_{}", role.name), "select count(*) from outbox").await?;
        }
        let mut session = self.administrator("souk_order").await?;
        let (orders, prompt_orders, events) = sqlx::query_as(AssertSqlSafe(format!(
            r#"select count(*) filter (where {UNFINISHED}),
                      count(*) filter (where {UNFINISHED} and payment_method like 'pm_card_%'),
                      coalesce(sum(version), 0)::bigint from "order""#
        )))
        .fetch_one(&mut session)
        .await?;
        session.close().await?;
        Ok(Backlog { orders, prompt_orders, held, payments, notifications, unpublished, events })
    }

    pub(crate) async fn count(&self, database: &str, query: &str) -> Result<i64> {
        let mut session = self.administrator(database).await?;
        let count = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut session).await?;
        session.close().await?;
        Ok(count)
    }

    /// Waits until the edge sends requests to every replica.
    pub(crate) async fn edge_serves(&self) -> Result<()> {
        parts::edge_serves(&self.layout).await
    }

    /// Runs `souk check`, and returns its output. Fails if an invariant is violated.
    pub(crate) async fn check(&self, journal: &str) -> Result<String> {
        let arguments = ["check", "--at-rest", "--journal", journal, "--journal-is-complete"];
        let said = parts::souk(&self.layout, &self.settings, &arguments).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    pub(crate) async fn stop(self) {
        // There are no requests any more, so replicas are killed instead of drained.
        for replica in all_replicas() {
            self.supervisor.send(replica, Command::End).await.ok();
        }
        self.supervisor.stop().await;
    }
}

/// Settings in addition to those of every stack.
fn settings(layout: &Layout) -> Vec<(String, String)> {
    let (ports, local) = (layout.ports, |port: u16| format!("127.0.0.1:{port}"));
    let all =
        |role: Role| (1..=count(role)).map(|replica| local(ports.grpc_of(role, replica))).collect::<Vec<_>>().join(",");
    let mut settings = vec![
        ("SOUK_USER_URL".to_owned(), format!("https://{}", all(roster::USER))),
        ("USER_SIGNING_KEY_LEAD".to_owned(), SIGNING_KEY_LEAD.to_owned()),
        ("PAYMENT_PROVIDER_TIMEOUT".to_owned(), "4s".to_owned()),
        ("SOUK_DRAIN".to_owned(), format!("{}ms", DRAIN.as_millis())),
        ("SOUK_LOG_FORMAT".to_owned(), "json".to_owned()),
    ];
    // `make up` and the other tests identify roles by certificates.
    settings.extend(kafka::with_passwords(layout));
    settings.extend(parts::wide_limits());
    for role in roster::ROLES {
        settings.push((format!("EDGE_{}", role.variable("endpoints")), all(role)));
    }
    settings
}

/// How long a replica that stops waits until the edge sends no more requests: longer than two health checks take.
const DRAIN: Duration = Duration::from_millis(2_500);
