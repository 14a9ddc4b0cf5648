//! A Docker engine of its own, with its data in `.dev/docker`. What it changes in the network of this machine is changed back.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stack::install::{on_path, packages, run};
use stack::layout::root;
use tokio::process::{Child, Command};

/// Compose and buildx as Docker's present command line has them; older distributions have none.
const PLUGINS: [&str; 2] = ["docker-compose", "docker-buildx"];
/// The release of Debian from which they are.
const PLUGINS_FROM: &str = "trixie";
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// dockerd turns it on, and lets no packets of others pass.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) struct Engine {
    environment: [(&'static str, String); 3],
    daemon: Child,
    forwarding: String,
    policy: String,
}

impl Engine {
    pub(super) async fn start(home: &Path, tools: &Path) -> Result<Self> {
        let needed = [("dockerd", "docker.io"), ("iptables", "iptables"), ("debootstrap", "debootstrap")];
        let missing: Vec<_> =
            needed.into_iter().filter(|it| !on_path(it.0)).map(|(what, package)| (package, what)).collect();
        packages(&missing).await?;
        fs::create_dir_all(home)?;
        let config = tools.join("docker");
        ensure_plugins(&config).await?;
        let (forwarding, policy) = (fs::read_to_string(FORWARDING)?, forward_policy().await?);
        let socket = format!("unix://{}", home.join("socket").display());
        let log = fs::File::create(home.join("dockerd.log"))?;
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(home.join("data"))
            .arg("--exec-root")
            .arg(home.join("exec"))
            .arg("--pidfile")
            .arg(home.join("pid"))
            .args(["--host", &socket])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("dockerd cannot be run")?;
        let environment = [
            ("DOCKER_HOST", socket),
            ("DOCKER_CONFIG", config.to_string_lossy().into_owned()),
            ("DOCKER_BUILDKIT", "1".to_owned()),
        ];
        let engine = Self { environment, daemon, forwarding, policy };
        match engine.ready(&home.join("dockerd.log")).await {
            Ok(()) => Ok(engine),
            Err(error) => engine.stop().await.and(Err(error)),
        }
    }

    async fn ready(&self, log: &Path) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.docker(&["version"]).await {
            ensure!(begun.elapsed() < STARTS_WITHIN, "dockerd does not answer ({error:#}), see {}", log.display());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Stops it, and the network that it made.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(id) = self.daemon.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(id, Signal::TERM)?;
        }
        if tokio::time::timeout(STOPS_WITHIN, self.daemon.wait()).await.is_err() {
            self.daemon.kill().await?;
        }
        // It is not there if dockerd did not come so far.
        run("ip", &["link", "delete", "docker0"], root()).await.ok();
        run("iptables", &["--policy", "FORWARD", &self.policy], root()).await?;
        Ok(fs::write(FORWARDING, &self.forwarding)?)
    }

    /// Runs `docker` to its end, and returns its output.
    pub(super) async fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("docker").args(arguments).stdin(Stdio::null()).output();
        let output = output.await.context("docker cannot be run")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("`docker {}` failed:\n{said}{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }

    /// `docker`, or a script that calls it.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What happens to packets between networks, unless a rule says otherwise.
async fn forward_policy() -> Result<String> {
    let output = Command::new("iptables").args(["--list-rules", "FORWARD"]).output().await.context("iptables")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let policy = said.lines().find_map(|line| line.strip_prefix("-P FORWARD "));
    Ok(policy.with_context(|| format!("iptables has no policy of FORWARD: {said}"))?.to_owned())
}

/// The mirror of Debian that this machine uses.
pub(super) async fn mirror() -> Result<String> {
    let mut apt = Command::new("apt-get");
    let output = apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).output().await?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.lines().next().context("apt-get has no source of packages")?.to_owned())
}

async fn ensure_plugins(config: &Path) -> Result<()> {
    let folder = config.join("cli-plugins");
    if PLUGINS.iter().all(|plugin| folder.join(plugin).exists()) {
        return Ok(());
    }
    println!("fetching Docker's compose and buildx");
    let apt = config.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(&folder)?;
    fs::write(apt.join("sources.list"), format!("deb {} {PLUGINS_FROM} main\n", mirror().await?))?;
    let setting = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    let settings = [
        setting("Dir::Etc::sourcelist", apt.join("sources.list")),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        setting("Dir::State::lists", apt.join("lists")),
        setting("Dir::Cache", apt.join("cache")),
    ];
    let options: Vec<&str> = settings.iter().flat_map(|setting| ["-o", setting]).collect();
    run("apt-get", &[&options[..], &["update"]].concat(), &apt).await?;
    run("apt-get", &[&options[..], &["download"], &PLUGINS].concat(), &apt).await?;
    for package in fs::read_dir(&apt)?.filter_map(|entry| Some(entry.ok()?.path())) {
        if package.extension().is_some_and(|it| it == "deb") {
            run("dpkg", &["-x", &package.to_string_lossy(), "."], &apt).await?;
        }
    }
    for plugin in PLUGINS {
        fs::rename(apt.join("usr/libexec/docker/cli-plugins").join(plugin), folder.join(plugin))?;
    }
    Ok(fs::remove_dir_all(apt)?)
}
