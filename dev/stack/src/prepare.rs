//! `make prepare` regenerates `.sqlx`: the sqlx macros describe each query by freshly migrated databases, so that builds need
//! none.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::install;
use crate::layout::{Layout, Ports, root};
use crate::parts::answers;
use crate::postgres::{self, Fsync};
use crate::supervisor::Supervisor;

const SERVER: &str = "postgres://postgres@127.0.0.1:25432";

/// The URL under which `#[sqlx::test]` creates its databases.
pub fn unit_database() -> String {
    format!("{SERVER}/postgres")
}

/// Starts the Postgres of unit tests, unless it runs already.
pub async fn start_postgres(supervisor: &mut Supervisor) -> Result<()> {
    let (layout, port) = (Layout::unit(), Ports::UNIT.postgres());
    if answers(port) {
        return Ok(());
    }
    install::ensure_postgres().await?;
    supervisor.start(postgres::trusted(&layout.home, port, layout.log("postgres"), Fsync::Off).await?).await
}

pub async fn run() -> Result<()> {
    let mut supervisor = Supervisor::default();
    start_postgres(&mut supervisor).await?;
    let outcome = prepare().await;
    supervisor.stop().await;
    outcome
}

async fn prepare() -> Result<()> {
    let mut environment = vec![("SQLX_OFFLINE".to_owned(), "false".to_owned())];
    for role in roster::services() {
        let service = role.name;
        let name = format!("prepare_{service}");
        let url = format!("{SERVER}/{name}");
        let (drop, create) = (format!("drop database if exists {name}"), format!("create database {name}"));
        psql(&unit_database(), &["-c", &drop, "-c", &create]).await?;
        let migrations = migrations(service)?;
        let files: Vec<_> = migrations.iter().flat_map(|file| ["-f", file.as_str()]).collect();
        psql(&url, &files).await.with_context(|| format!("the migrations of {service}"))?;
        environment.push((role.variable("database_url"), url));
    }
    // Each query has a file, named by its hash. Removing all removes those of queries that are gone.
    let cache = root().join(".sqlx");
    if cache.exists() {
        std::fs::remove_dir_all(&cache)?;
    }
    std::fs::create_dir(&cache)?;
    for entry in std::fs::read_dir(root().join("services"))? {
        // On stable Rust, cargo does not know that the macros read the environment, and would not rebuild.
        let library = entry?.path().join("src");
        for file in ["lib.rs", "main.rs"].map(|file| library.join(file)).into_iter().filter(|file| file.exists()) {
            std::fs::File::open(file)?.set_modified(std::time::SystemTime::now())?;
        }
    }
    let mut check = Command::new("cargo");
    check.args(["check", "-q", "--workspace", "--all-targets"]).current_dir(root()).stdin(Stdio::null());
    check.envs(environment).env("SQLX_OFFLINE_DIR", cache.canonicalize()?);
    ensure!(check.status().await?.success(), "the workspace does not compile");
    let count = std::fs::read_dir(&cache)?.count();
    println!("{count} queries in .sqlx");
    Ok(())
}

/// The migrations of a service, in order.
fn migrations(service: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(root().join("migrations").join(service))?;
    let entries = entries.map(|entry| Ok(entry?.path().to_string_lossy().into_owned()));
    let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Each statement commits by itself, which is enough for temporary databases.
async fn psql(url: &str, arguments: &[&str]) -> Result<()> {
    let psql = install::postgres().context("Postgres is not installed")?.join("psql");
    let options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url];
    install::run(&psql.to_string_lossy(), &[&options[..], arguments].concat(), root()).await
}
