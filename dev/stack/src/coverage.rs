//! `make coverage`: all tests again, instrumented, and the share of lines that they ran, by crate.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::install;
use crate::layout::{Layout, root};
use crate::supervisor::Supervisor;
use crate::test::{start_servers, step};

/// The share of lines, in percent, below which it fails. It only rises.
const FLOOR: f64 = 80.0;
const FOLDER: &str = "target/coverage";
/// Only crates of this repository are instrumented. Processes that a test kills record nothing.
const RUN: &str = r#"set -eu
eval "$(cargo llvm-cov show-env --sh)"
cargo llvm-cov clean --workspace
cargo build -q --workspace
cargo test -q --workspace --no-fail-fast
cargo llvm-cov report --json --summary-only --output-path "$CARGO_TARGET_DIR/summary.json""#;

pub async fn run() -> Result<()> {
    let tools = Layout::unit().tools;
    install::ensure(&tools).await?;
    let tool = install::ensure_checker(&tools, install::CARGO_LLVM_COV).await?;
    let folder = Path::new(&tool).parent().context("it is in a folder")?;
    let mut path = vec![folder.to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = std::env::join_paths(path)?.into_string().ok().context("PATH is text")?;
    let target = root().join(FOLDER);
    let mut environment = vec![("PATH", path), ("CARGO_TARGET_DIR", target.to_string_lossy().into_owned())];
    environment.extend(install::ensure_llvm().await?);

    let mut supervisor = Supervisor::default();
    environment.extend(start_servers(&mut supervisor).await?);
    let outcome = step("tests, instrumented", "sh", &["-c", RUN], &environment).await;
    supervisor.stop().await;
    outcome?;
    let summary = std::fs::read(target.join("summary.json"))?;
    let covered = report(&serde_json::from_slice(&summary).context("the summary of cargo-llvm-cov")?)?;
    ensure!(covered >= FLOOR, "{covered:.1} % of the lines are covered, and at least {FLOOR} % must be");
    Ok(())
}

/// How many lines there are, and how many the tests ran.
#[derive(Default, Clone, Copy)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    fn read(file: &Value) -> Option<Self> {
        let lines = &file["summary"]["lines"];
        Some(Self { count: lines["count"].as_u64()?, covered: lines["covered"].as_u64()? })
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
    }

    fn percent(self) -> f64 {
        if self.count == 0 { 100.0 } else { self.covered as f64 * 100.0 / self.count as f64 }
    }
}

/// Prints the crates, those with the smallest share first. Returns the share of all lines, in percent.
fn report(summary: &Value) -> Result<f64> {
    let (mut crates, mut all) = (BTreeMap::<_, Lines>::new(), Lines::default());
    for file in summary["data"][0]["files"].as_array().context("the summary has files")? {
        let name = file["filename"].as_str().context("a file has a name")?;
        let path = Path::new(name).strip_prefix(root()).context("a file is ours")?;
        let lines = Lines::read(file).context("a file has lines")?;
        let name: Vec<_> = path.iter().map(|part| part.to_string_lossy()).take_while(|part| part != "src").collect();
        crates.entry(name.join("/")).or_default().add(lines);
        all.add(lines);
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by(|one, other| one.1.percent().total_cmp(&other.1.percent()));
    println!("{:<24} {:>8} {:>8}", "crate", "lines", "covered");
    for (name, lines) in crates.iter().map(|(name, lines)| (name.as_str(), *lines)).chain([("all", all)]) {
        println!("{name:<24} {:>8} {:>6.1} %", lines.count, lines.percent());
    }
    Ok(all.percent())
}
