//! `trials bench`: the cost of orders, reads and our layers on this machine: real servers with fsync, the release build, and one
//! load generator. Times of orders are read from their events, so that no poll disturbs the measurement.

pub mod check;
pub mod flash;
pub mod layers;
pub mod reads;
pub mod search;
pub mod security;
mod statements;

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use stack::client::Client;
use stack::controlled::Stack;
use stack::layout::Build;
use stack::postgres::ADMINISTRATOR;

const STEADY: Duration = Duration::from_secs(20);
const CROWD: usize = 32;
const RUSH: Duration = Duration::from_secs(20);

/// Measures real servers with fsync. The stack has ended when it returns, so that its ports are free.
async fn with_stack(measure: impl AsyncFnOnce(&Stack) -> Result<()>) -> Result<()> {
    let stack = Stack::start(Build::Release, &["--fsync=on"]).await?;
    let measured = measure(&stack).await;
    stack.stop().await.and(measured)
}

#[derive(Debug, Args)]
pub struct Options {
    /// Orders per second while latencies are measured: fewer than the machine settles, which is printed, or they are those of a queue.
    #[arg(long, env = "RATE", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

pub async fn run(options: &Options) -> Result<()> {
    with_stack(async |stack: &Stack| measure(stack, options.rate).await).await
}

async fn measure(stack: &Stack, rate: u32) -> Result<()> {
    let (operator, customer) = (stack.operator().await?, stack.customer().await?.impatient());
    let product = operator.stock("BENCH", "A thing", ("EUR", 1_250), 1_000_000).await?;
    for _ in 0..200 {
        customer.order(&product, 1, "pm_card_visa").await?.ok()?;
    }
    wait_until_paid(stack).await?;
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());

    let before = Work::read(stack).await?;
    let mut latencies = steady(&customer, &product, rate).await?;
    wait_until_paid(stack).await?;
    let work = Work::read(stack).await?.since(&before, latencies.len());
    println!("at {rate}/s for {STEADY:?}: CreateOrder {}", percentiles(&mut latencies));
    let mut confirmed = times_to_confirm(stack, i64::from(rate) * STEADY.as_secs().cast_signed()).await?;
    println!("at {rate}/s for {STEADY:?}: CONFIRMED after {}", percentiles(&mut confirmed));
    println!("at {rate}/s for {STEADY:?}: {work} per order");

    statements::reset(&mut orders(stack).await?).await?;
    let (before, worked) = (usage()?, Work::read(stack).await?);
    let (placed, elapsed) = rush(stack, std::slice::from_ref(&product), RUSH).await?;
    let (after, work) = (usage()?, Work::read(stack).await?.since(&worked, placed));
    let count = placed as f64;
    println!("{CROWD} clients for {RUSH:?}: {:.0} orders/s confirmed and paid", count / elapsed.as_secs_f64());
    let mut total = 0.0;
    for (name, (cpu, rss)) in &after {
        let spent = (cpu - before.get(name).map_or(0.0, |it| it.0)) * 1_000.0 / count;
        total += spent;
        println!("  {name:10} {spent:6.2} ms CPU per order, {rss} MiB resident");
    }
    println!("  together   {total:6.2} ms CPU per order; {work} per order");
    statements::print(&mut orders(stack).await?, placed).await?;
    reads::measure(stack).await?;
    layers::run(&stack.layout, &product).await
}

/// Calls at a fixed rate, whether or not earlier calls have responses.
async fn steady(customer: &Client, product: &str, rate: u32) -> Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    while begun.elapsed() < STEADY {
        ticks.tick().await;
        let (customer, product) = (customer.clone(), product.to_owned());
        calls.spawn(async move {
            let begun = Instant::now();
            customer.order(&product, 1, "pm_card_visa").await?.ok()?;
            anyhow::Ok(begun.elapsed())
        });
    }
    calls.join_all().await.into_iter().collect()
}

/// Orders these products in turn, as fast as possible. Returns the number of orders, and the time until all were paid.
async fn rush(stack: &Stack, products: &[String], lasts: Duration) -> Result<(usize, Duration)> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(stack.customer().await?.impatient());
    }
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    for (place, customer) in crowd.into_iter().enumerate() {
        let products = products.to_vec();
        calls.spawn(async move {
            let mut placed = 0;
            while begun.elapsed() < lasts {
                let product = &products[(place + placed * CROWD) % products.len()];
                customer.order(product, 1, "pm_card_visa").await?.ok()?;
                placed += 1;
            }
            anyhow::Ok(placed)
        });
    }
    let mut placed = 0;
    for outcome in calls.join_all().await {
        placed += outcome?;
    }
    wait_until_paid(stack).await?;
    Ok((placed, begun.elapsed()))
}

async fn orders(stack: &Stack) -> Result<PgConnection> {
    Ok(PgConnection::connect(&stack.layout.database(ADMINISTRATOR, "souk_order")?).await?)
}

async fn wait_until_paid(stack: &Stack) -> Result<()> {
    let mut db = orders(stack).await?;
    loop {
        let open: i64 =
            sqlx::query_scalar(r#"select count(*) from "order" where state <> 'CONFIRMED' or not captured"#)
                .fetch_one(&mut db)
                .await?;
        if open == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn times_to_confirm(stack: &Stack, last: i64) -> Result<Vec<Duration>> {
    let seconds: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from confirmed.occurred_at - placed.occurred_at)::float8
         from order_event as placed join order_event as confirmed using (order_id)
         where placed.version = 1 and confirmed.type = 'souk.order.v1.OrderConfirmed'
         order by placed.occurred_at desc limit $1",
    )
    .bind(last)
    .fetch_all(&mut orders(stack).await?)
    .await?;
    Ok(seconds.into_iter().map(Duration::from_secs_f64).collect())
}

/// The statements and commits of all services.
struct Work {
    /// Except those that begin or end a transaction, or set up a session.
    statements: f64,
    /// Single reads, too.
    commits: f64,
    /// Transactions that wrote.
    writes: f64,
}

impl Work {
    async fn read(stack: &Stack) -> Result<Self> {
        let mut db = orders(stack).await?;
        sqlx::query("create extension if not exists pg_stat_statements").execute(&mut db).await?;
        let statements = "select sum(calls)::float8 from pg_stat_statements join pg_database on oid = dbid
                          where datname like 'souk_%' and query !~* '^(begin|commit|rollback|set|select pg_catalog)'";
        let commits = "select sum(xact_commit)::float8 from pg_stat_database where datname like 'souk_%'";
        // Only a transaction that writes is given a number.
        let writes = "select pg_snapshot_xmax(pg_current_snapshot())::text::float8";
        Ok(Self {
            statements: sqlx::query_scalar(statements).fetch_one(&mut db).await?,
            commits: sqlx::query_scalar(commits).fetch_one(&mut db).await?,
            writes: sqlx::query_scalar(writes).fetch_one(&mut db).await?,
        })
    }

    /// The work per order, since `before`.
    fn since(&self, before: &Self, orders: usize) -> Self {
        let orders = orders as f64;
        Self {
            statements: (self.statements - before.statements) / orders,
            commits: (self.commits - before.commits) / orders,
            writes: (self.writes - before.writes) / orders,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} statements, {:.1} commits ({:.1} that write)", self.statements, self.commits, self.writes)
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort();
    let text = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
        .map(|(name, share)| format!("{name} {:.1} ms", percentile(times, share).as_secs_f64() * 1_000.0));
    text.join(", ")
}

/// A percentile of sorted times.
pub(crate) fn percentile(times: &[Duration], share: f64) -> Duration {
    let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// CPU seconds and resident MiB of each program: the processes under the supervisor, which is our child.
fn usage() -> Result<HashMap<String, (f64, u64)>> {
    let mut parents = HashMap::new();
    let mut figures = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end meanwhile.
        let Ok(process) = Process::read(pid) else { continue };
        parents.insert(pid, process.parent);
        figures.push((pid, process));
    }
    let ours = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == std::process::id() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let mut parts = HashMap::<String, (f64, u64)>::new();
    for (_, process) in figures.into_iter().filter(|it| ours(it.0)) {
        let part = parts.entry(process.name).or_default();
        part.0 += process.cpu_seconds;
        part.1 = part.1.max(process.resident_mib);
    }
    Ok(parts)
}

/// A process, from `/proc`.
struct Process {
    name: String,
    parent: u32,
    /// Its own CPU time, and that of its children that have ended.
    cpu_seconds: f64,
    resident_mib: u64,
}

impl Process {
    fn read(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (head, rest) = stat.rsplit_once(") ").context("the name of a process is in brackets")?;
        let fields: Vec<_> = rest.split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        Ok(Self {
            name: head.split_once('(').map_or("", |it| it.1).to_owned(),
            parent: u32::try_from(field(1)).unwrap_or_default(),
            // In ticks of 10 ms.
            cpu_seconds: [11, 12, 13, 14].map(field).iter().sum::<u64>() as f64 / 100.0,
            resident_mib: field(21) * 4_096 / (1 << 20),
        })
    }
}
