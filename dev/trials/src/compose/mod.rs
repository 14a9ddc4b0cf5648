//! `make compose-test`: `docker-compose.yml` as it is, in a Docker engine of its own, with stand-ins for the official images. It ends
//! with the test purchase; then customers buy while one container of each kind is killed, and everything is lost and restored from a
//! backup; and `souk check` checks the invariants.

mod engine;
mod project;
mod stand_ins;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use stack::client::Client;
use stack::install;
use stack::layout::{Layout, root};

use crate::faults::control::Control;
use crate::faults::journal::Journal;
use crate::faults::load::{CUSTOMERS, Load};
use engine::Engine;
use project::Project;

#[derive(Debug, Args)]
pub struct Options {
    /// Stop after the test purchase, without kills.
    #[arg(long)]
    short: bool,
}

/// Everything that serves, in the order in which they are killed.
const SERVERS: [&str; 14] = [
    "gateway",
    "user",
    "product",
    "inventory",
    "order",
    "payment",
    "notification",
    "analytics",
    "edge",
    "provider",
    "mail",
    "redis",
    "kafka",
    "postgres",
];
const PRODUCTS: usize = 20;
const UNITS: u32 = 1_000_000;
/// Purchases per second: enough that each kill meets some.
const RATE: f64 = 5.0;
const EDGE: u16 = 8_080;

pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let say = |what: &str| println!("[{:6.1} s] {what}", begun.elapsed().as_secs_f64());
    let (tools, home) = (Layout::up().tools, root().join(".dev/docker"));
    install::ensure(&tools).await?;
    let engine = Engine::start(&home, &tools).await?;
    say("the Docker engine runs");
    let outcome = async {
        stand_ins::ensure(&engine, &tools, &say).await?;
        test(options, &engine, &home, &say).await
    };
    let outcome = outcome.await;
    engine.stop().await.and(outcome)
}

async fn test(options: &Options, engine: &Engine, home: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let project = Project::new(engine);
    let tried = async {
        project.run(&["--progress", "plain", "build"]).await?;
        say("the images are built");
        project.describe_images().await?;
        project.run(&["up", "--detach", "--quiet-pull"]).await?;
        let log = project.finish("purchase").await?;
        ensure!(log.contains("and is paid"), "the log of the test purchase does not show that it is paid:\n{log}");
        print!("{log}");
        say("everything runs, and the test purchase is paid");
        if options.short { Ok(()) } else { try_under_load(&project, home, say).await }
    };
    let tried = tried.await;
    if tried.is_err() {
        // Its error, if any, says less than that of the trial.
        project.show_logs().await.ok();
    }
    project.run(&["--profile", "check", "down", "--volumes", "--timeout", "30"]).await.and(tried)
}

async fn try_under_load(project: &Project<'_>, home: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let email = "operator@souk.local";
    let password = project.file("secrets:/secrets/keys/operator.password", home).await?;
    let edge = Client::new(EDGE);
    let operator = edge.sign_in(email, password.trim_end()).await.context("the operator cannot sign in")?;
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        products.push(operator.stock(&format!("F-{number}"), "A thing", ("EUR", 1_250), UNITS).await?);
    }
    let path = home.join("journal.jsonl");
    let journal = Arc::new(Journal::create(&path)?);
    // They count failures, so they repeat no request by themselves.
    let edge = edge.impatient();
    let load = Load::start(edge.clone(), (email, password.trim_end()), journal.clone(), &products, 1);
    load.set_rate(RATE);
    let control = Control::start(edge, None);
    let tried = async {
        for server in SERVERS {
            journal.buys(CUSTOMERS.into(), &control).await.with_context(|| format!("before {server} is killed"))?;
            let killed = Instant::now();
            project.kill(server).await?;
            journal.buys(CUSTOMERS.into(), &control).await.with_context(|| format!("{server} was killed"))?;
            say(&format!(
                "{server} was killed; {CUSTOMERS} more purchases took {:.1} s",
                killed.elapsed().as_secs_f64()
            ));
        }
        project.show_memory().await?;
        let paused = load.pause().await;
        restore(project, home, say).await?;
        drop(paused);
        journal.buys(CUSTOMERS.into(), &control).await.context("everything was restored")
    };
    let tried = tried.await;
    let failures = load.stop().await;
    tried?;
    ensure!(failures.is_empty(), "customers failed: {failures:?}");
    let wrong = journal.take_wrong();
    ensure!(wrong.is_none(), "a wrong refusal: {wrong:?}");
    let mount = format!("{}:/journal.jsonl:ro", path.display());
    let check = ["run", "--rm", "--volume", &mount, "check", "check", "--journal", "/journal.jsonl"];
    print!("{}", project.run(&check).await?);
    say(&format!("{} orders were placed, and no invariant was violated", journal.bought()));
    Ok(())
}

/// Orders are in every state meanwhile.
async fn restore(project: &Project<'_>, home: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let backup = home.join("backup");
    project.script("backup.sh", &backup).await?;
    say("there is a backup");
    project.lose_everything().await?;
    project.script("restore.sh", &backup).await?;
    std::fs::remove_dir_all(backup)?;
    project.run(&["up", "--detach", "--quiet-pull", "--scale", "order=2"]).await?;
    let replicas = project.run(&["ps", "--quiet", "order"]).await?;
    ensure!(replicas.lines().count() == 2, "two replicas of order were asked for: {replicas}");
    say("everything was lost, and restored, with a second replica of order");
    Ok(())
}
