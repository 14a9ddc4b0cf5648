//! `make faults`: two replicas of everything, customers who buy all the time, and a seeded schedule of everything that can
//! go wrong. Afterwards all is healed, everything comes to rest, and `souk check` looks whether a promise was broken.

mod backlog;
mod cluster;
mod control;
mod customers;
mod databases;
mod fault;
mod journal;
mod kafka;
mod load;
mod machine;
mod peers;
mod processes;
mod provider;
mod proxy;
mod report;
mod trial;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use backlog::Backlog;
use cluster::Cluster;
use control::Control;
use fault::{Fault, Pace};
use journal::Journal;
use load::Load;
use machine::Machine;
use report::Row;
use stack::install;
use stack::layout::{Build, Layout};
use stack::parts::Fsync;
use trial::Stage;

#[derive(Debug, Args)]
pub struct Options {
    /// Which schedule: the same number gives the same one. None: a new one, which is printed.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random pairs of faults come at once, after each came alone.
    #[arg(long, env = "PAIRS", default_value_t = 0)]
    pairs: u32,
    /// Purchases a second, if the machine does twice as many: 40, or 10 in a short run.
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
/// How long nothing at all may happen to what is under way once no customer buys any more: a refund that the provider does not know
/// is asked for again after a minute.
const REST: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:6.1} s] {what}", begun.elapsed().as_secs_f64());
    let seed = options.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut random = StdRng::seed_from_u64(seed);
    say(&format!("SEED={seed} PAIRS={}", options.pairs));
    let layout = Layout::faults(if options.debug { Build::Debug } else { Build::Release });
    install::ensure(&layout.tools).await?;
    let fsync = if options.short { Fsync::Off } else { Fsync::On };
    let cluster = Cluster::start(layout, fsync, &say).await?;
    let outcome = run_schedule(options, seed, &mut random, &cluster, fsync, &say).await;
    cluster.stop().await;
    outcome
}

async fn run_schedule(
    options: &Options,
    seed: u64,
    random: &mut StdRng,
    cluster: &Cluster,
    fsync: Fsync,
    say: &dyn Fn(&str),
) -> Result<()> {
    let operator = cluster.operator().await?;
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        products.push(operator.stock(&format!("F-{number}"), "A thing", ("EUR", 1_250), UNITS).await?);
    }
    let path = cluster.layout.home.join("journal.jsonl");
    let journal = Arc::new(Journal::create(&path)?);
    let load = Load::start(cluster.client(), cluster.credentials(), journal.clone(), &products, seed);
    let written = (fsync == Fsync::On).then(|| cluster.layout.home.join("written-by-the-control"));
    let control = Control::start(cluster.client(), written);
    let pace = if options.short { Pace::Short } else { Pace::Full };
    let machine = Machine::measure((options.rate(), pace), cluster, &load, &journal, &control).await?;
    say(&format!("{machine}."));
    let mut stage = Stage {
        cluster,
        journal: journal.clone(),
        load: &load,
        control: &control,
        machine,
        pace,
        left: Backlog::default(),
    };
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for faults in schedule(options, random)? {
        let row = stage.try_out(&faults, random).await?;
        say(&row.line());
        problems.extend(row.verdict.as_ref().err().map(|why| format!("{}: {why}", row.name)));
        rows.push(row);
    }
    say("no more faults; everything comes to rest");
    problems.extend(load.stop().await.into_iter().map(|error| format!("a customer gave up: {error:#}")));
    // Between two faults, or after the last.
    problems.extend(journal.take_wrong().map(|wrong| format!("a wrong answer: {wrong}")));
    let begun = Instant::now();
    if let Err(error) = backlog::rest(cluster, &control, REST + machine.slack()).await {
        problems.push(format!("not everything comes to rest: {error:#}"));
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
        let run = format!("SEED={seed} PAIRS={} RATE={}", options.pairs, machine.rate);
        write_table(table, &run, &format!("{machine}.\n\n{sum}"), &rows, &checked)?;
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
that is *to try again* got no answer, or one that says so, and the customer repeated it under the same key. *Failing for* is
the longest time in which requests failed at a stretch, *until* when the last of them ended, counted from when the fault was
over, and *settled* when every order placed before that had settled and was paid, but for those paid in ways that are slow
whatever happens. Between two faults, customers wait until everything has settled.

How fast the machine is decides nothing. What it does is measured first and stands above each table: customers buy at half of
that, 40 times a second at most, and each limit, which is one of the product's own timeouts, gets a slack. A control, whose
requests no fault touches, tells when the machine stalled, which is when it got no answer for half a second; what failed then, or
within five seconds after, does not count. Orders count as lost when nothing happens to any order for longer than the product
itself ever waits.
";
