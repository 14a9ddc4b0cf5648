//! `make test`: format, lints, contracts, then all tests, against real servers.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::install;
use crate::kafka;
use crate::layout::{Build, Layout, root};
use crate::parts;
use crate::pki;
use crate::prepare::{start_postgres, unit_database};
use crate::supervisor::Supervisor;

pub async fn run() -> Result<()> {
    let layout = Layout::test(Build::Debug);
    install::ensure(&layout.tools).await?;
    install::check_cargo(&["fmt", "clippy"]).await?;
    step("format", "cargo", &["fmt", "--all", "--check"], &[]).await?;
    check_dependencies(&layout.tools).await?;
    lint_contracts(&layout.tools).await?;
    let clippy = ["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("lints", "cargo", &clippy, &[]).await?;
    step("build", "cargo", &["build", "-q", "--workspace"], &[]).await?;

    // The build may have replaced this program, so the new one is run.
    let program = |name| layout.program(name).to_string_lossy().into_owned();
    try_up(&program("stack")).await?;
    let faults = step("faults, in short", &program("trials"), &["faults", "--short", "--debug"], &[]).await;
    let mut supervisor = Supervisor::default();
    let environment = start_servers(&mut supervisor).await?;
    let outcome = step("tests", "cargo", &["test", "--workspace", "--no-fail-fast"], &environment).await;
    supervisor.stop().await;
    outcome.and(faults)
}

/// Runs `make up` without data, and again with the data of the first run.
async fn try_up(stack: &str) -> Result<()> {
    let home = Layout::trial().home;
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    for name in ["make up, cold", "make up, warm"] {
        step(name, stack, &["up", "--once", "--trial"], &[]).await?;
    }
    Ok(())
}

/// Runs the servers that tests of single crates need until Ctrl-C, for `cargo test -p NAME`.
pub async fn serve() -> Result<()> {
    install::ensure(&Layout::test(Build::Debug).tools).await?;
    let mut supervisor = Supervisor::default();
    let environment = start_servers(&mut supervisor).await?;
    for (name, value) in environment {
        println!("export {name}={value}");
    }
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome?,
        why = supervisor.failure() => bail!(why),
    }
    supervisor.stop().await;
    Ok(())
}

/// Starts the servers of unit tests, unless they run already. Returns the environment variables with their addresses.
pub async fn start_servers(supervisor: &mut Supervisor) -> Result<[(&'static str, String); 5]> {
    let unit = Layout::unit();
    pki::ensure(&unit.pki)?;
    let stripe_mock = install::ensure_stripe_mock(&unit.tools).await?;
    start_postgres(supervisor).await?;
    if !parts::answers(unit.ports.kafka()) {
        // Removes the data of earlier runs.
        std::fs::remove_dir_all(unit.home.join("kafka")).ok();
        supervisor.start(kafka::plain(&unit).await?).await?;
    }
    if !parts::answers(unit.ports.redis()) {
        supervisor.start(parts::redis(&unit)).await?;
    }
    if !parts::answers(unit.ports.stripe()) {
        supervisor.start(parts::stripe_mock(&unit, stripe_mock)).await?;
    }
    Ok([
        ("DATABASE_URL", unit_database()),
        ("SOUK_TEST_KAFKA", format!("127.0.0.1:{}", unit.ports.kafka())),
        ("SOUK_TEST_REDIS", parts::redis_url(&unit)),
        ("SOUK_TEST_STRIPE", format!("http://127.0.0.1:{}", unit.ports.stripe())),
        ("SOUK_ENVOY", install::envoy(&unit.tools)?.to_string_lossy().into_owned()),
    ])
}

pub(crate) async fn step(name: &str, program: &str, arguments: &[&str], environment: &[(&str, String)]) -> Result<()> {
    let begun = Instant::now();
    println!("== {name}");
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(root());
    let status = command.stdin(Stdio::null()).status().await.with_context(|| format!("{program} cannot be run"))?;
    println!("== {name}: {} in {:.0} s", if status.success() { "ok" } else { "failed" }, begun.elapsed().as_secs_f64());
    ensure!(status.success(), "{name} failed");
    Ok(())
}

/// All dependencies are used, and `deny.toml` allows them.
async fn check_dependencies(tools: &Path) -> Result<()> {
    let shear = install::ensure_checker(tools, install::CARGO_SHEAR).await?;
    step("dependencies: all are used", &shear, &["--locked"], &[]).await?;
    let deny = install::ensure_checker(tools, install::CARGO_DENY).await?;
    let arguments = ["--locked", "--workspace", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    step("dependencies: licences, duplicates, sources", &deny, &arguments, &[]).await
}

/// buf's STANDARD lint without exceptions, and no breaking change since the last release.
async fn lint_contracts(tools: &Path) -> Result<()> {
    let buf = install::ensure_checker(tools, install::BUF).await?;
    // buf needs the imported files on disk. They are those of the crate that we build with.
    let imports = root().join(".dev/buf");
    let rules = imports.join("buf/validate");
    std::fs::create_dir_all(&rules)?;
    std::fs::copy(find_rules().await?, rules.join("validate.proto"))?;
    let released = root().join("proto/released.binpb");
    step("contracts: lint", &buf, &["lint", "proto"], &[]).await?;
    if released.exists() {
        let against = ["breaking", "proto", "--against", "proto/released.binpb"];
        step("contracts: nothing is broken", &buf, &against, &[]).await?;
    }
    Ok(())
}

async fn find_rules() -> Result<std::path::PathBuf> {
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--format-version", "1"]).current_dir(root()).stdin(Stdio::null());
    let metadata = metadata.output().await?.stdout;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).context("cargo metadata is JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let package = packages.iter().find(|package| package["name"] == "prost-protovalidate-types");
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).map(Path::new);
    match manifest.and_then(Path::parent) {
        Some(folder) => Ok(folder.join("proto/buf/validate/validate.proto")),
        None => bail!("the crate with buf/validate/validate.proto is not among the dependencies"),
    }
}
