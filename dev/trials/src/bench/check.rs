//! Measures the time and memory of `souk check` over many orders, which are written directly into the databases, the topics and
//! the provider's ledger. One in twenty was cancelled after it was paid. There are no violations, so nothing is checked twice.

mod records;
mod rows;
mod story;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::process::Command;

use stack::install;
use stack::layout::{Build, Layout};
use stack::parts;
use stack::postgres::{Access, Fsync};
use stack::supervisor::Supervisor;
use story::Story;

/// The most resident memory that it may use.
const MAX_KIB: u64 = 256 << 10;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct Options {
    /// The number of orders.
    #[arg(long, default_value_t = 1_000_000)]
    orders: u64,
}

pub async fn run(options: &Options) -> Result<()> {
    let layout = Layout::test(Build::Release);
    layout.ports.check_free()?;
    install::ensure(&layout.tools).await?;
    if layout.home.exists() {
        std::fs::remove_dir_all(&layout.home)?;
    }
    let mut supervisor = Supervisor::default();
    let measured = measure(&layout, &mut supervisor, &Story::of(options.orders)?).await;
    supervisor.stop().await;
    // It has some gigabytes.
    std::fs::remove_dir_all(&layout.home)?;
    measured
}

async fn measure(layout: &Layout, supervisor: &mut Supervisor, story: &Story) -> Result<()> {
    let begun = Instant::now();
    provider::seed(&layout.home.join("provider"), story.orders().map(|order| order.at_provider()))?;
    parts::start_dependencies(layout, supervisor, Fsync::Off, Access::Secured, &[], &|_| {}).await?;
    rows::write(layout, story).await?;
    records::write(layout, story)?;
    println!("{} orders were written in {} s", story.count, begun.elapsed().as_secs());
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());

    let begun = Instant::now();
    let program = layout.program("souk");
    let mut command = Command::new(&program);
    command.arg("check").envs(parts::environment(layout)).stdin(Stdio::null()).kill_on_drop(true);
    let mut check = command.spawn().with_context(|| format!("{} cannot be run", program.display()))?;
    let pid = check.id().context("it runs")?;
    let mut peak = 0;
    let status = loop {
        tokio::select! {
            status = check.wait() => break status?,
            () = tokio::time::sleep(LOOK_AGAIN) => peak = peak_kib(pid).unwrap_or(peak),
        }
    };
    let elapsed = begun.elapsed().as_secs_f64();
    println!("souk check over {} orders: {elapsed:.0} s, {} MiB at its peak", story.count, peak >> 10);
    ensure!(status.success(), "it found violations where there are none");
    ensure!(peak <= MAX_KIB, "it used more than {} MiB", MAX_KIB >> 10);
    Ok(())
}

/// The peak of this process' resident memory.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
