//! Postgres: its cluster, certificate and passwords.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::install::{self, run};
use crate::layout::Layout;
use crate::spec::{Ready, Spec};

/// Whether Postgres flushes commits to the disk. Off if the data is discarded afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fsync {
    On,
    Off,
}

/// Who may connect to Postgres and Kafka, from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody as anybody, in plain text: for the tests of single crates, and to measure what the others cost.
    Trusted,
    /// With a password, and TLS.
    Secured,
    /// With a password. Proxies that look into the protocol of Postgres need it in plain text.
    Passwords,
}

/// The role that may do everything.
pub const ADMINISTRATOR: &str = "postgres";

/// Postgres refuses to run as root.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("postgres")
}

/// The Postgres of a stack.
pub async fn of_stack(layout: &Layout, fsync: Fsync, access: Access) -> Result<Spec> {
    let mut spec = trusted(&layout.home, layout.ports.postgres(), layout.log("postgres"), fsync).await?;
    let data = layout.home.join("postgres");
    set_password(&data, &layout.password(ADMINISTRATOR)?).await?;
    let plain = match access {
        Access::Trusted => "host all all 127.0.0.1/32 trust\n",
        Access::Passwords => "host all all 127.0.0.1/32 scram-sha-256\n",
        Access::Secured => "",
    };
    let hba = write(&data, "souk_hba.conf", &format!("{plain}hostssl all all 127.0.0.1/32 scram-sha-256\n")).await?;
    let certificate = write(&data, "souk.crt", &std::fs::read_to_string(layout.pki.join("postgres.crt"))?).await?;
    let key = write(&data, "souk.key", &std::fs::read_to_string(layout.pki.join("postgres.key"))?).await?;
    let settings = [
        ("hba_file", hba),
        ("ssl", "on".to_owned()),
        ("ssl_min_protocol_version", "TLSv1.3".to_owned()),
        ("ssl_cert_file", certificate),
        ("ssl_key_file", key),
    ];
    spec.arguments.extend(flags(settings));
    Ok(spec)
}

/// Creates a database cluster if there is none, and returns how to run it.
pub async fn trusted(home: &Path, port: u16, log: PathBuf, fsync: Fsync) -> Result<Spec> {
    let bin = install::postgres().context("Postgres is not installed")?;
    let data = home.join("postgres");
    std::fs::create_dir_all(home)?;
    if !data.exists() {
        // Created in a temporary folder, so that a partial cluster is never used.
        let half = home.join("postgres.half");
        std::fs::remove_dir_all(&half).ok();
        std::fs::create_dir(&half)?;
        let path = half.to_string_lossy();
        if let Some(user) = user() {
            run("chown", &[user, &path], home).await?;
            open_parents(&half)?;
        }
        let arguments =
            ["-D", &path, "--auth=trust", "-U", ADMINISTRATOR, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"];
        let outcome = command(&bin.join("initdb")).args(arguments).stdin(Stdio::null()).output().await?;
        ensure!(outcome.status.success(), "initdb: {}", String::from_utf8_lossy(&outcome.stderr));
        std::fs::rename(&half, &data)?;
    }
    let settings = [
        ("port", port.to_string()),
        ("listen_addresses", "127.0.0.1".to_owned()),
        // All clients use TCP, and the path of a Unix socket could be too long: it has at most 107 characters.
        ("unix_socket_directories", String::new()),
        ("max_connections", "300".to_owned()),
        ("shared_buffers", "256MB".to_owned()),
        ("max_wal_size", "2GB".to_owned()),
        ("fsync", if fsync == Fsync::On { "on" } else { "off" }.to_owned()),
        // `make bench` counts statements and adds up their times. The extension is part of Postgres' packages.
        ("shared_preload_libraries", if fsync == Fsync::On { "pg_stat_statements" } else { "" }.to_owned()),
    ];
    let mut arguments = vec!["-D".to_owned(), data.to_string_lossy().into_owned()];
    arguments.extend(flags(settings));
    Ok(Spec {
        name: "postgres",
        program: bin.join("postgres"),
        arguments,
        environment: vec![],
        user: user(),
        port,
        ready: Ready::AcceptsQueries,
        log,
        stop: Signal::INT,
        lock: Some(data.join("postmaster.pid")),
    })
}

fn flags<const N: usize>(settings: [(&str, String); N]) -> impl Iterator<Item = String> {
    settings.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
}

/// A program of Postgres, run by the account that owns the data.
fn command(program: &Path) -> Command {
    let mut command = match user() {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]).arg(program);
            command
        }
    };
    command.current_dir("/");
    command
}

/// Sets the administrator's password. It needs no running server, and no earlier password.
async fn set_password(data: &Path, password: &str) -> Result<()> {
    let bin = install::postgres().context("Postgres is not installed")?;
    let mut command = command(&bin.join("postgres"));
    command.arg("--single").arg("-D").arg(data).args(["-c", "unix_socket_directories=", "postgres"]);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut input = server.stdin.take().context("it is piped")?;
    input.write_all(format!("alter role {ADMINISTRATOR} password '{password}'\n").as_bytes()).await?;
    drop(input);
    let outcome = server.wait_with_output().await?;
    ensure!(outcome.status.success(), "postgres --single: {}", String::from_utf8_lossy(&outcome.stderr));
    Ok(())
}

/// Writes a file that only the server's account can read, and returns its path.
async fn write(data: &Path, name: &str, text: &str) -> Result<String> {
    let path = data.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    let path = path.to_string_lossy().into_owned();
    if let Some(user) = user() {
        run("chown", &[user, &path], Path::new("/")).await?;
    }
    Ok(path)
}

/// Lets the other account traverse, but not read, the folders above its own.
fn open_parents(folder: &Path) -> Result<()> {
    for parent in folder.ancestors().skip(1) {
        let mode = std::fs::metadata(parent)?.permissions().mode();
        if mode & 0o001 == 0 {
            println!("adding o+x to {}, as Postgres runs as another account", parent.display());
            std::fs::set_permissions(parent, PermissionsExt::from_mode(mode | 0o001))?;
        }
    }
    Ok(())
}
