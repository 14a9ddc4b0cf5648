//! Abuse of the edge: one address attacks it, or many do, and a client of another address reads a product meanwhile. An attack fails
//! the trial if it raises the 95th percentile of these reads too much, compared with the time right before and after it, if one of
//! them fails, if it keeps the owner of an account out, or if the memory of Envoy or of Souk grows beyond a bound.

mod attacks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bench::percentile;
use attacks::{ATTACKS, Attack, COMPUTING, Owner, Target};
use stack::client::{Client, random_password};
use stack::controlled::Stack;
use stack::layout::Build;

#[derive(Debug, Args)]
pub struct Options {
    /// Attack for five seconds each, instead of a minute.
    #[arg(long)]
    short: bool,
    /// Run only these attacks, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run the debug build.
    #[arg(long)]
    debug: bool,
}

const READERS: usize = 4;
/// A reader's pause, so that the readers alone do not load the machine.
const PAUSE: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// By how much the resident memory of Envoy, or of all roles, may grow. Envoy's heap is bounded to four times that.
const MAX_GROWTH_MIB: u64 = 256;

pub async fn run(options: &Options) -> Result<()> {
    // The limits that the attacks meet are those of production.
    let limits = [
        ("CONNECTION_RATE", 10),
        ("CONNECTION_BURST", 500),
        ("WRITE_RATE", 500),
        ("WRITE_BURST", 1_000),
        ("ACCOUNT_COUNT", 100),
    ];
    let settings = limits.map(|(limit, count)| format!("--set=SOUK_LIMIT_{limit}={count}"));
    let build = if options.debug { Build::Debug } else { Build::Release };
    let stack = Stack::start(build, &settings.each_ref().map(String::as_str)).await?;
    let attacked = attack_all(&stack, options).await;
    stack.stop().await.and(attacked)
}

async fn attack_all(stack: &Stack, options: &Options) -> Result<()> {
    let product = stack.operator().await?.stock("ABUSE", "A thing", ("EUR", 1_250), 1).await?;
    let path = format!("/v1/products/{product}");
    let owners = [owner(stack, "owner@example.com").await?, owner(stack, "attacker@example.com").await?];
    let token = stack.customer().await?.token().await?;
    let target = Arc::new(Target::new(stack.ports().edge(), token, owners));
    let lasts = Duration::from_secs(if options.short { 5 } else { 60 });
    let chosen = |attack: &&Attack| options.only.is_empty() || options.only.iter().any(|name| name == attack.name);
    let mut problems = Vec::new();
    for attack in ATTACKS.iter().filter(chosen) {
        let begun = [rss(stack, "envoy").await?, rss(stack, "souk").await?];
        let before = read(stack, &path, lasts / 2).await?;
        let mut peaks = begun;
        let during = tokio::select! {
            during = read_beside(attack, &target, stack, &path, lasts) => during?,
            failed = watch(stack, &mut peaks) => return failed.context("memory"),
        };
        let seen = target.take();
        let after = read(stack, &path, lasts / 2).await?;
        let mut usual = before.p95.max(after.p95);
        if attack.computes {
            let busy = read_beside(&COMPUTING, &target, stack, &path, lasts / 2).await?;
            println!("p95 of a client's GetProduct beside {}: {:.1?}", COMPUTING.what, busy.p95);
            usual = usual.max(busy.p95);
        }
        let slowdown = during.p95.as_secs_f64() / usual.as_secs_f64();
        println!("{}: {}", attack.name, attack.what);
        println!("  {seen}");
        println!(
            "  p95 of another client's GetProduct: before {:.1?}, during {:.1?}, after {:.1?}: {slowdown:.2}x; {} of {} failed",
            before.p95, during.p95, after.p95, during.failed, during.count
        );
        for (name, (begun, peak)) in ["Envoy", "souk"].into_iter().zip(begun.into_iter().zip(peaks)) {
            println!("  memory of {name}: {begun} MiB before, {peak} MiB at the most");
            if peak > begun + MAX_GROWTH_MIB {
                problems.push(format!("{}: the memory of {name} grew from {begun} to {peak} MiB", attack.name));
            }
        }
        if slowdown > attack.slowdown {
            problems.push(format!("{}: reads took {slowdown:.2} times as long", attack.name));
        }
        if seen.kept_out > 0 {
            problems
                .push(format!("{}: the owner of an account could not sign in {} times", attack.name, seen.kept_out));
        }
        if during.failed > 0 {
            problems.push(format!("{}: {} reads failed", attack.name, during.failed));
        }
    }
    ensure!(problems.is_empty(), "{} problems:\n  {}", problems.len(), problems.join("\n  "));
    Ok(())
}

/// Somebody with an account, who has signed in before.
async fn owner(stack: &Stack, email: &str) -> Result<Owner> {
    let (client, password) = (Client::new(stack.ports().edge()), random_password());
    let account = json!({"email": email, "password": password, "displayName": "An owner"});
    client.post("/v1/users", account).await?.ok()?;
    let session = client.post("/v1/sessions", json!({"email": email, "password": password})).await?.ok()?;
    let device_token = session["deviceToken"].as_str().context("a device token")?.to_owned();
    Ok(Owner { email: email.to_owned(), password, device_token })
}

async fn read_beside(
    attack: &'static Attack,
    target: &Arc<Target>,
    stack: &Stack,
    path: &str,
    lasts: Duration,
) -> Result<Reads> {
    let mut attacker = Attacker::start(attack, target.clone());
    let reads = tokio::select! {
        reads = read(stack, path, lasts) => reads?,
        never = &mut attacker.ended => return Err(never?.expect_err("attacks go on")).context(attack.name),
    };
    drop(attacker.stop);
    attacker.ended.await??;
    Ok(reads)
}

/// An attack, on a thread of its own that yields to all others: elsewhere, an attacker has a machine of its own, and neither takes
/// time from Souk's nor delays what other clients measure.
struct Attacker {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Attacker {
    fn start(attack: &'static Attack, target: Arc<Target>) -> Self {
        let ((stop, stopped), (end, ended)) = (oneshot::channel(), oneshot::channel());
        std::thread::spawn(move || {
            let outcome = run_beside(async {
                tokio::select! {
                    outcome = (attack.run)(target) => outcome,
                    _ = stopped => Ok(()),
                }
            });
            // If the trial has failed, nobody waits for it.
            let _ = end.send(outcome);
        });
        Self { stop, ended }
    }
}

fn run_beside(attack: impl Future<Output = Result<()>>) -> Result<()> {
    // On Linux, a thread has a priority of its own.
    setpriority_process(Some(gettid()), 19)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(attack)
}

struct Reads {
    p95: Duration,
    count: usize,
    failed: usize,
}

/// What a client with a few connections measures.
async fn read(stack: &Stack, path: &str, lasts: Duration) -> Result<Reads> {
    let (begun, mut readers) = (Instant::now(), JoinSet::new());
    for _ in 0..READERS {
        let (client, path) = (Client::new(stack.ports().edge()).impatient(), path.to_owned());
        readers.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while begun.elapsed() < lasts {
                let started = Instant::now();
                let response = client.get(&path).await;
                times.push(started.elapsed());
                failed += usize::from(!response.is_ok_and(|response| response.status.is_success()));
                sleep(PAUSE).await;
            }
            (times, failed)
        });
    }
    let (times, failed): (Vec<_>, Vec<_>) = readers.join_all().await.into_iter().unzip();
    let mut times = times.concat();
    times.sort();
    Ok(Reads { p95: percentile(&times, 0.95), count: times.len(), failed: failed.into_iter().sum() })
}

/// Resident memory in MiB.
async fn rss(stack: &Stack, name: &str) -> Result<u64> {
    // A process that is not paused is not affected, and its id is the response.
    let pid = stack.control(&format!("resume {name}")).await?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1_024)
}

/// Records the peaks until something fails.
async fn watch(stack: &Stack, peaks: &mut [u64; 2]) -> Result<()> {
    loop {
        for (name, peak) in ["envoy", "souk"].into_iter().zip(peaks.iter_mut()) {
            *peak = rss(stack, name).await?.max(*peak);
        }
        sleep(LOOK_EVERY).await;
    }
}
