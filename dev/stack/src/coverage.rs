//! `make coverage`: all tests again, instrumented, and the share of lines that they ran, by crate.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::install;
use crate::layout::{Layout, root};
use crate::supervisor::Supervisor;
use crate::test::{start_servers, step};

/// The share of lines of what is deployed, in percent, below which it fails. It only rises.
const FLOOR: f64 = 95.0;
/// What is not deployed. Much of it runs in other checks only, such as `make faults`.
const NOT_DEPLOYED: [&str; 2] = ["dev/", "services/testkit"];
const FOLDER: &str = "target/coverage";
/// Only crates of this repository are instrumented. Processes that a test kills record nothing, and those without its environment
/// record it where they are.
const RUN: &str = r#"set -eu
eval "$(cargo llvm-cov show-env --sh)"
cargo llvm-cov clean --workspace
cargo build -q --workspace
cargo test -q --workspace --no-fail-fast
find services -name "*.profraw" -delete
cargo llvm-cov report --workspace --json --summary-only --output-path "$CARGO_TARGET_DIR/summary.json""#;

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

/// Prints the crates, those with the smallest share first, without generated code. Returns the share of the lines that are deployed,
/// in percent.
fn report(summary: &Value) -> Result<f64> {
    let (root, mut crates, mut deployed) = (root().canonicalize()?, BTreeMap::<_, Lines>::new(), Lines::default());
    for file in summary["data"][0]["files"].as_array().context("the summary has files")? {
        let name = file["filename"].as_str().context("a file has a name")?;
        let Ok(path) = Path::new(name).strip_prefix(&root) else { continue };
        if path.components().any(|part| part.as_os_str() == "target") {
            continue;
        }
        let lines = Lines::read(file).context("a file has lines")?;
        let folder: Vec<_> = path.iter().map(|part| part.to_string_lossy()).take_while(|part| part != "src").collect();
        let folder = folder.join("/");
        // The crate of the contracts has no folder `src`.
        let name = if folder.ends_with(".rs") { "proto".to_owned() } else { folder };
        if !NOT_DEPLOYED.iter().any(|it| name.starts_with(it)) {
            deployed.add(lines);
        }
        crates.entry(name).or_default().add(lines);
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by(|one, other| one.1.percent().total_cmp(&other.1.percent()));
    println!("{:<24} {:>8} {:>8}", "crate", "lines", "covered");
    for (name, lines) in crates.iter().map(|(name, lines)| (name.as_str(), *lines)).chain([("deployed", deployed)]) {
        println!("{name:<24} {:>8} {:>6.1} %", lines.count, lines.percent());
    }
    Ok(deployed.percent())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_deployed_counts() {
        let root = root().canonicalize().expect("it is there");
        let file = |name: &str, count: u64, covered: u64| {
            let name = root.join(name).to_string_lossy().into_owned();
            json!({"filename": name, "summary": {"lines": {"count": count, "covered": covered}}})
        };
        let files = [
            file("services/order/src/saga.rs", 60, 60),
            file("proto/codec.rs", 40, 35),
            file("dev/trials/src/main.rs", 50, 0),
            file("services/testkit/src/kit.rs", 50, 0),
            file("target/coverage/debug/build/contracts-1/out/souk.order.v1.rs", 50, 0),
        ];
        let share = report(&json!({"data": [{"files": files}]})).expect("it is a summary");
        assert!((share - 95.0).abs() < 1e-9, "{share}");
    }
}
