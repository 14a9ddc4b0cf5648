//! `make faults`: two replicas of everything, customers who buy all the time, and a seeded schedule of everything that can
//! go wrong. Afterwards all is healed, everything comes to rest, and `souk check` looks whether a promise was broken.

mod cluster;
mod customers;
mod databases;
mod fault;
mod journal;
mod kafka;
mod load;
mod peers;
mod processes;
mod provider;
mod proxy;
mod report;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use time::OffsetDateTime;

use crate::install;
use crate::layout::Layout;
use crate::parts::Fsync;
use cluster::Cluster;
use fault::{A_MINUTE, Expect, Fault, Pace, Site};
use journal::Journal;
use load::Load;
use report::{Row, Trial};

#[derive(Debug, Args)]
pub struct Options {
    /// Which schedule: the same number gives the same one. None: a new one, which is printed.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random pairs of faults come at once, after each came alone.
    #[arg(long, env = "PAIRS", default_value_t = 0)]
    pairs: u32,
    /// Purchases a second: 40, or 10 in a short run. About half of what two cores can do with all of this on them.
    #[arg(long, env = "RATE")]
    rate: Option<u32>,
    /// A few faults, each short: what `make test` runs.
    #[arg(long)]
    short: bool,
    /// Only these faults, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run the debug build.
    #[arg(long)]
    debug: bool,
    /// Where the table is written; with a table of an earlier run there, the new one is added below.
    #[arg(long)]
    table: Option<PathBuf>,
}

impl Options {
    fn rate(&self) -> u32 {
        self.rate.unwrap_or(if self.short { 10 } else { 40 })
    }
}

const PRODUCTS: usize = 100;
const UNITS: u32 = 1_000_000;
const CUSTOMERS: u32 = 24;
/// How long everything may take to come to rest once nothing is wrong any more.
const REST: Duration = Duration::from_secs(120);
const WARM_UP: Duration = Duration::from_secs(5);
/// How long customers are watched after something was healed.
const AFTERWARDS: Duration = Duration::from_secs(4);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:6.1} s] {what}", begun.elapsed().as_secs_f64());
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut random = StdRng::seed_from_u64(seed);
    say(&format!("SEED={seed} PAIRS={} RATE={}", options.pairs, options.rate()));
    let mut layout = Layout::faults();
    if options.debug {
        layout.souk = Layout::test().souk;
    }
    install::ensure(&layout.tools).await?;
    let fsync = if options.short { Fsync::Off } else { Fsync::On };
    let cluster = Cluster::start(layout, fsync, &say).await?;
    let outcome = run_schedule(options, seed, &mut random, &cluster, &say).await;
    cluster.stop().await;
    outcome
}

async fn run_schedule(
    options: &Options,
    seed: u64,
    random: &mut StdRng,
    cluster: &Cluster,
    say: &dyn Fn(&str),
) -> Result<()> {
    let operator = cluster.operator().await?;
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        products.push(operator.stock(&format!("F-{number}"), "A thing", ("EUR", 1_250), UNITS).await?);
    }
    let path = cluster.layout.home.join("journal.jsonl");
    let journal = Arc::new(Journal::create(&path)?);
    let (customers, rate) = (CUSTOMERS, options.rate());
    let load =
        Load::start(cluster.client(), cluster.credentials(), journal.clone(), &products, (customers, rate), seed);
    let pace = if options.short { Pace::Short } else { Pace::Full };
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    tokio::time::sleep(WARM_UP).await;
    for faults in schedule(options, random)? {
        let row = try_out(&faults, cluster, &journal, random, pace, f64::from(rate)).await?;
        say(&row.line());
        problems.extend(row.verdict.as_ref().err().map(|why| format!("{}: {why}", row.name)));
        rows.push(row);
    }
    say("no more faults; everything comes to rest");
    problems.extend(load.stop().await.into_iter().map(|error| format!("a customer gave up: {error:#}")));
    // Between two faults, or after the last.
    problems.extend(journal.take_wrong().map(|wrong| format!("a wrong answer: {wrong}")));
    let begun = Instant::now();
    while !cluster.is_quiet().await? {
        if begun.elapsed() > REST {
            problems.push(format!("something was still under way {REST:?} after the last purchase"));
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    say(&format!("at rest after {:.1} s", begun.elapsed().as_secs_f64()));
    let checked = cluster.check(&path.to_string_lossy()).await;
    if let Err(error) = &checked {
        problems.push(format!("{error:#}"));
    }
    let checked = checked.unwrap_or_else(|error| format!("{error:#}"));
    println!("{checked}");
    let (requests, wishes) = journal.count();
    let sum = format!("{requests} requests, {wishes} of them to place, to cancel or to give back");
    say(&sum);
    if let Some(table) = &options.table {
        write_table(table, &format!("SEED={seed} PAIRS={} RATE={rate}", options.pairs), &sum, &rows, &checked)?;
    }
    ensure!(problems.is_empty(), "{} problems:\n  {}", problems.len(), problems.join("\n  "));
    say("no promise was broken");
    Ok(())
}

/// Every fault once, in an order of the seed's; then pairs.
fn schedule(options: &Options, random: &mut StdRng) -> Result<Vec<Vec<&'static Fault>>> {
    let everything: Vec<_> = fault::all().collect();
    if !options.only.is_empty() {
        let find = |name: &String| everything.iter().find(|fault| fault.name == name);
        let named =
            options.only.iter().map(|name| Ok(vec![*find(name).with_context(|| format!("no fault `{name}`"))?]));
        return named.collect();
    }
    let mut all = everything.clone();
    all.retain(|fault| fault.is_short || !options.short);
    all.shuffle(random);
    let mut plan: Vec<_> = all.into_iter().map(|fault| vec![fault]).collect();
    for _ in 0..options.pairs {
        plan.push(everything.sample(random, 2).copied().collect());
    }
    Ok(plan)
}

async fn try_out(
    faults: &[&Fault],
    cluster: &Cluster,
    journal: &Arc<Journal>,
    random: &mut StdRng,
    pace: Pace,
    rate: f64,
) -> Result<Row> {
    let (injected, deaths) = (Instant::now(), cluster.deaths());
    let is_calm = faults.iter().any(|fault| fault.is_calm);
    journal.calm.store(is_calm, Ordering::Relaxed);
    let mut site = || Site { cluster, journal, random: StdRng::seed_from_u64(random.random()), pace };
    let (expect, settles, mut outcome) = match faults {
        [one] => {
            let outcome = (one.inject)(site()).await;
            (one.expect, one.settles, outcome.map(|()| String::new()).map_err(|error| format!("{error:#}")))
        }
        [one, other] => {
            let together = tokio::join!((one.inject)(site()), (other.inject)(site()));
            // What one waits for, or works on, may not be there while the other is at work.
            let named = faults.iter().zip([together.0, together.1]);
            let notes = named.filter_map(|(fault, it)| Some(format!("; {}: {:#}", fault.name, it.err()?)));
            // Together they may make anything fail for a while; nothing may be broken.
            (Expect::ServesWithin(Duration::from_secs(15)), 2 * A_MINUTE, Ok(notes.collect()))
        }
        _ => bail!("a try is of one fault, or of two"),
    };
    journal.leaving.store(false, Ordering::Relaxed);
    cluster.heal().await?;
    let healed = Instant::now();
    let (settled, ()) = tokio::join!(settle(cluster, healed, settles * pace.slack()), tokio::time::sleep(AFTERWARDS));
    journal.calm.store(false, Ordering::Relaxed);
    let died: Vec<_> = cluster.deaths().into_iter().filter(|it| !deaths.contains(it)).map(|(name, _)| name).collect();
    if !died.is_empty() {
        outcome = Err(format!("{} died unasked", died.join(", ")));
    }
    let names: Vec<_> = faults.iter().map(|fault| fault.name).collect();
    let whats: Vec<_> = faults.iter().map(|fault| fault.what).collect();
    let (name, what, rate) = (names.join(" + "), whats.join("; "), if is_calm { rate / 2.0 } else { rate });
    let trial = Trial { name, what, expect, injected, healed, settled: settled?, rate, outcome };
    Ok(report::judge(trial, journal, pace).await)
}

/// How long it took until all orders placed before had settled and were paid. None: longer than anybody waits for it.
async fn settle(cluster: &Cluster, healed: Instant, patience: Duration) -> Result<Option<Duration>> {
    let before = OffsetDateTime::now_utc();
    while cluster.unsettled(before).await? > 0 {
        if healed.elapsed() > patience {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(Some(healed.elapsed()))
}

fn write_table(table: &Path, run: &str, sum: &str, rows: &[Row], checked: &str) -> Result<()> {
    let mut text = std::fs::read_to_string(table).unwrap_or_else(|_| HEAD.to_owned());
    writeln!(text, "\n## {run}\n\n{sum}.\n")?;
    writeln!(
        text,
        "| Fault | What is done | Attempts | Ok | Refused | To try again | Failing for | Until | Settled | Verdict |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        writeln!(text, "{}", row.markdown())?;
    }
    writeln!(text, "\n`souk check` afterwards:\n\n```\n{}\n```", checked.trim())?;
    Ok(std::fs::write(table, text)?)
}

const HEAD: &str = "# Faults

Written by `make faults`: two replicas of every role behind the edge, customers who buy all the time, and everything that can go
wrong. An attempt is one request: to place or to cancel an order, to give back a part of what was paid, to read, to sign in. One
that is *to try again* got no answer, or one that says so, and whoever asked repeated it under the same key. *Failing for* is
the longest time in which requests failed at a stretch, *until* when the last of them ended, counted from when the fault was
over, and *settled* when every order placed before that had settled and was paid, but for those paid in ways that are slow
whatever happens. Beside faults that let work pile up for long (Kafka's), customers buy at half the rate.
";
