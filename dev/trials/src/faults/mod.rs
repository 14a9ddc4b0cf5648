//! `make faults`: two or three replicas of every role under load, and a seeded schedule of faults. Afterwards the backlog drains, and
//! `souk check` checks the invariants.

mod backlog;
mod certificates;
mod cluster;
pub(crate) mod control;
mod customers;
mod databases;
mod deliveries;
mod fault;
pub(crate) mod journal;
mod kafka;
mod limits;
pub(crate) mod load;
mod machine;
mod mails;
mod moment;
mod peers;
mod processes;
mod provider;
mod proxy;
mod report;
mod tls;
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
use stack::postgres::Fsync;
use trial::Trials;

#[derive(Debug, Args)]
pub struct Options {
    /// The seed of the schedule. Default: random; it is printed.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random pairs of faults are injected at the same time, after each one alone.
    #[arg(long, env = "PAIRS", default_value_t = 0)]
    pairs: u32,
    /// Purchases per second, at most half of the machine's capacity. Default: 40, or 10 in a short run.
    #[arg(long, env = "RATE")]
    rate: Option<u32>,
    /// Run a few faults, each short, as `make test` does.
    #[arg(long)]
    short: bool,
    /// Run only these faults, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run the debug build.
    #[arg(long)]
    debug: bool,
    /// The file to append the table of results to.
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
/// How long the backlog may make no progress after the last purchase: a refund that the provider does not know is retried after a
/// minute.
const FINAL_PATIENCE: Duration = Duration::from_secs(120);
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
    let mut trials = Trials {
        cluster,
        journal: journal.clone(),
        load: &load,
        control: &control,
        machine,
        rate: machine.rate,
        pace,
        left: Backlog::default(),
    };
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for faults in schedule(options, random)? {
        let row = trials.run(&faults, random).await?;
        say(&row.line());
        problems.extend(row.verdict.as_ref().err().map(|why| format!("{}: {why}", row.name)));
        rows.push(row);
    }
    say("no more faults; the backlog drains");
    problems.extend(load.stop().await.into_iter().map(|error| format!("a customer failed: {error:#}")));
    // Between two faults, or after the last one.
    problems.extend(journal.take_wrong().map(|wrong| format!("a wrong refusal: {wrong}")));
    let begun = Instant::now();
    if let Err(error) = backlog::drain_all(cluster, &control, FINAL_PATIENCE + machine.slack()).await {
        problems.push(format!("the backlog does not drain: {error:#}"));
    }
    say(&format!("the backlog was drained after {:.1} s", begun.elapsed().as_secs_f64()));
    let checked = cluster.check(&path.to_string_lossy()).await;
    if let Err(error) = &checked {
        problems.push(format!("{error:#}"));
    }
    let delivered = deliveries::check(cluster).await.unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        format!("{error:#}")
    });
    let checked = checked.unwrap_or_else(|error| format!("{error:#}"));
    println!("{checked}");
    let (requests, writes) = journal.count();
    let sum = format!("{requests} requests, {writes} of them writes with an idempotency key. {delivered}");
    say(&sum);
    if let Some(table) = &options.table {
        let run = format!("SEED={seed} PAIRS={} RATE={}", options.pairs, machine.rate);
        write_table(table, &run, &format!("{machine}.\n\n{sum}"), &rows, &checked)?;
    }
    ensure!(problems.is_empty(), "{} problems:\n  {}", problems.len(), problems.join("\n  "));
    say("no invariant was violated");
    Ok(())
}

/// Every fault once, in random order; then random pairs.
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
        "| Fault | What is done | Requests | Ok | Refused | Failed | Failing for | Until | Settled | Verdict |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        writeln!(text, "{}", row.markdown())?;
    }
    writeln!(text, "\n`souk check` afterwards:\n\n```\n{}\n```", checked.trim())?;
    Ok(std::fs::write(table, text)?)
}

const HEAD: &str = "# Faults

Written by `make faults`: two or three replicas of every role behind the edge, customers who buy all the time, and one injected fault after
another. Requests place and cancel orders, refund, read and sign in. A *failed* request got no response, or one that asks to
retry, and the customer repeated it under the same key. *Failing for* is the longest time in which requests failed at a stretch.
*Until* is when the last failed request ended, and *settled* is when every order of before the end of the fault was paid, or
had ended otherwise, except those with slow payment methods; both are counted from the end of the fault. Between two faults,
customers wait until the backlog is drained.

The results do not depend on the speed of the machine. Its capacity is measured first and printed above each table: customers use
half of it, at most 40 purchases per second, and less while requests take twice as long as usual before a fault; each limit, which is
one of the product's own timeouts, gets a slack. A control client, whose requests no fault affects, detects when the machine stalls,
which is when it gets no response for half a second; failures then, or within five seconds after, do not count. A trial fails when no
order makes progress for longer than the product itself ever waits, and when fewer requests succeeded than one per second.

Afterwards `souk check` checks the invariants, and what the mail server and the provider of text messages accepted, as counted on the
connections to them, is compared with the notifications: each delivered one was accepted, and nothing else was.
";
