//! `make faults`: two replicas of everything, customers who buy all the time, and a seeded schedule of everything that can
//! go wrong. Afterwards all is healed, everything comes to rest, and `souk check` looks whether a promise was broken.

mod cluster;
mod fault;
mod load;
mod proxy;
mod report;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::install;
use crate::layout::Layout;
use crate::parts::Fsync;
use cluster::Cluster;
use fault::{Expect, Fault, Pace};
use load::{Journal, Load};
use report::Row;

#[derive(Debug, Args)]
pub struct Options {
    /// Which schedule: the same number gives the same one. None: a new one, which is printed.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random pairs of faults come at once, after each came alone.
    #[arg(long, env = "PAIRS", default_value_t = 0)]
    pairs: u32,
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

const PRODUCTS: usize = 100;
const UNITS: u32 = 1_000_000;
const CUSTOMERS: u32 = 24;
/// Purchases a second.
const RATE: u32 = 60;
/// How long everything may take to come to rest once nothing is wrong any more.
const REST: Duration = Duration::from_secs(120);
const WARM_UP: Duration = Duration::from_secs(5);
/// How long customers are watched after something was healed.
const AFTERWARDS: Duration = Duration::from_secs(8);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:6.1} s] {what}", begun.elapsed().as_secs_f64());
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut random = StdRng::seed_from_u64(seed);
    say(&format!("SEED={seed} PAIRS={}", options.pairs));
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
    let load = Load::start(cluster.client(), journal.clone(), &products, CUSTOMERS, RATE, seed);
    let pace = if options.short { Pace::Short } else { Pace::Full };
    let mut rows = Vec::new();
    tokio::time::sleep(WARM_UP).await;
    for faults in schedule(options, random)? {
        let row = try_out(&faults, cluster, &journal, random, pace).await?;
        say(&row.line());
        rows.push(row);
    }
    say("no more faults; everything comes to rest");
    load.stop().await?;
    let begun = Instant::now();
    while !cluster.is_quiet().await? {
        ensure!(begun.elapsed() < REST, "orders were still under way {REST:?} after the last of them");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    say(&format!("at rest after {:.1} s", begun.elapsed().as_secs_f64()));
    let checked = cluster.check(&path.to_string_lossy()).await?;
    println!("{checked}");
    let violated = rows.iter().filter(|row| row.verdict.is_err()).count();
    let sum: usize = rows.iter().map(|row| row.attempts).sum();
    say(&format!(
        "{} attempts in all, {sum} of them while something was wrong; {violated} verdicts violated",
        journal.count()
    ));
    if let Some(table) = &options.table {
        write_table(table, seed, options.pairs, journal.count(), &rows, &checked)?;
    }
    ensure!(violated == 0, "{violated} faults had other consequences than they may");
    Ok(())
}

/// Every fault once, in an order of the seed's; then pairs.
fn schedule(options: &Options, random: &mut StdRng) -> Result<Vec<Vec<Fault>>> {
    if !options.only.is_empty() {
        let find = |name: &String| Fault::ALL.into_iter().find(|fault| fault.describe().0 == name);
        let named = options.only.iter().map(|name| Ok(vec![find(name).with_context(|| format!("no fault `{name}`"))?]));
        return named.collect();
    }
    let mut all = if options.short { Fault::SHORT.to_vec() } else { Fault::ALL.to_vec() };
    all.shuffle(random);
    let mut plan: Vec<_> = all.into_iter().map(|fault| vec![fault]).collect();
    for _ in 0..options.pairs {
        plan.push(Fault::ALL.sample(random, 2).copied().collect());
    }
    Ok(plan)
}

async fn try_out(
    faults: &[Fault],
    cluster: &Cluster,
    journal: &Journal,
    random: &mut StdRng,
    pace: Pace,
) -> Result<Row> {
    let injected = Instant::now();
    let mut expect = faults[0].expectation();
    match faults {
        [one] => one.inject(cluster, journal, random, pace).await?,
        [one, other, ..] => {
            let (mut first, mut second) =
                (StdRng::seed_from_u64(random.random()), StdRng::seed_from_u64(random.random()));
            // Together they may make anything fail for a while; nothing may be broken.
            expect = Expect::ServesWithin(Duration::from_secs(15));
            let together = tokio::join!(
                one.inject(cluster, journal, &mut first, pace),
                other.inject(cluster, journal, &mut second, pace)
            );
            // A moment that one waits for may never come while the other is at work.
            for (fault, outcome) in faults.iter().zip([together.0, together.1]) {
                if let Err(error) = outcome {
                    println!("  {}: {error:#}", fault.describe().0);
                }
            }
        }
        [] => bail!("a try needs a fault"),
    }
    let healed = Instant::now();
    tokio::time::sleep(AFTERWARDS).await;
    let names: Vec<_> = faults.iter().map(|fault| fault.describe().0).collect();
    let whats: Vec<_> = faults.iter().map(|fault| fault.describe().1).collect();
    Ok(report::judge(&names.join(" + "), &whats.join("; "), journal, injected, healed, expect))
}

fn write_table(table: &Path, seed: u64, pairs: u32, attempts: usize, rows: &[Row], checked: &str) -> Result<()> {
    let mut text = std::fs::read_to_string(table).unwrap_or_else(|_| HEAD.to_owned());
    writeln!(text, "\n## SEED={seed} PAIRS={pairs}: {attempts} attempts\n")?;
    writeln!(text, "| Fault | What is done | Attempts | Ok | Refused | To try again | Recovery | Verdict |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        writeln!(text, "{}", row.markdown())?;
    }
    writeln!(text, "\n`souk check` afterwards:\n\n```\n{}\n```", checked.trim())?;
    Ok(std::fs::write(table, text)?)
}

const HEAD: &str = "# Faults

Written by `make faults`: two replicas of every role behind the edge, customers who buy all the time, and everything that can go
wrong. An attempt is one request to place or to cancel an order; one that is to be tried again got no answer, or one that says so,
and its customer repeated it under the same key.
";
