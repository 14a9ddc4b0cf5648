//! The containers of `docker-compose.yml`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stack::layout::root;

use super::engine::Engine;
use super::stand_ins::BASE;

/// How long a killed container may take until it is healthy again.
const RESTARTS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What Souk may add to it, in bytes.
const MAX_OWN: u64 = 60_000_000;

pub(super) struct Project<'a> {
    engine: &'a Engine,
}

impl<'a> Project<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine }
    }

    /// `docker compose`, to its end. Returns its output.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let file = root().join("docker-compose.yml");
        let compose = ["compose", "--file", &file.to_string_lossy()].map(str::to_owned);
        let arguments = compose.iter().map(String::as_str).chain(arguments.iter().copied());
        self.engine.docker(&arguments.collect::<Vec<_>>()).await
    }

    /// Runs a script of `dev/stack/compose/` for a folder.
    pub(super) async fn script(&self, script: &str, folder: &Path) -> Result<()> {
        let script = root().join("dev/stack/compose").join(script);
        let output = self.engine.command(&script).arg(folder).stdin(Stdio::null()).output().await?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed:\n{said}", script.display());
        Ok(())
    }

    /// Deletes all containers, and what they keep but for the payments at the provider, as if another machine went on.
    pub(super) async fn lose_everything(&self) -> Result<()> {
        self.run(&["down"]).await?;
        let volumes = self.engine.docker(&["volume", "ls", "--quiet", "--filter", "name=^souk_"]).await?;
        for volume in volumes.lines().filter(|volume| *volume != "souk_provider") {
            self.engine.docker(&["volume", "rm", volume]).await?;
        }
        Ok(())
    }

    /// Waits until a job has succeeded. Returns its log.
    pub(super) async fn finish(&self, job: &str) -> Result<String> {
        let container = self.container(job).await?;
        let code = self.engine.docker(&["wait", &container]).await?;
        let log = self.engine.docker(&["logs", &container]).await?;
        ensure!(code.trim() == "0", "{job} ended with {}:\n{log}", code.trim());
        Ok(log)
    }

    /// A file of a container, by way of a folder of ours.
    pub(super) async fn file(&self, from: &str, folder: &Path) -> Result<String> {
        let copy = folder.join("copy");
        self.run(&["cp", from, &copy.to_string_lossy()]).await?;
        let text = std::fs::read_to_string(&copy)?;
        std::fs::remove_file(copy)?;
        Ok(text)
    }

    /// Kills the process of a container, as a crash does: `docker kill` would be a wish that it stays away. Waits until Docker has
    /// started it again and it is healthy.
    pub(super) async fn kill(&self, service: &str) -> Result<()> {
        let container = self.container(service).await?;
        let look = async |format: &str| {
            let said = self.engine.docker(&["inspect", "--format", format, &container]).await?;
            anyhow::Ok(said.trim().to_owned())
        };
        let (process, restarts) = (look("{{.State.Pid}}").await?, look("{{.RestartCount}}").await?);
        let id = process.parse().ok().and_then(Pid::from_raw).with_context(|| format!("{service} does not run"))?;
        kill_process(id, Signal::KILL)?;
        let begun = Instant::now();
        let state = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}";
        loop {
            let restarted = look("{{.RestartCount}}").await? != restarts;
            let state = look(state).await?;
            if restarted && state == "running healthy" {
                return Ok(());
            }
            if begun.elapsed() > RESTARTS_WITHIN {
                bail!("{service} was killed, and after {RESTARTS_WITHIN:?} it is {state}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Fails if Souk adds too much to its base.
    pub(super) async fn describe_images(&self) -> Result<()> {
        let inspect = async |format: &str, image: &str| {
            self.engine.docker(&["image", "inspect", "--format", format, image]).await
        };
        for image in ["souk", "souk-laptop"] {
            let about = "{{.Size}} bytes, {{len .RootFS.Layers}} layers, user {{.Config.User}}";
            println!("{image}: {}", inspect(about, image).await?.trim());
        }
        let size = async |image| anyhow::Ok(inspect("{{.Size}}", image).await?.trim().parse::<u64>()?);
        let own = size("souk").await?.saturating_sub(size(BASE).await?);
        println!("souk has {own} bytes beside its base");
        ensure!(own <= MAX_OWN, "the image of Souk has more than {MAX_OWN} bytes beside its base");
        Ok(())
    }

    pub(super) async fn show_memory(&self) -> Result<()> {
        let columns = "table {{.Name}}\t{{.MemUsage}}\t{{.CPUPerc}}";
        print!("{}", self.engine.docker(&["stats", "--no-stream", "--format", columns]).await?);
        Ok(())
    }

    pub(super) async fn show_logs(&self) -> Result<()> {
        println!("{}", self.run(&["ps", "--all"]).await?);
        println!("{}", self.run(&["logs", "--no-color", "--tail", "15"]).await?);
        Ok(())
    }

    async fn container(&self, service: &str) -> Result<String> {
        let said = self.run(&["ps", "--all", "--quiet", service]).await?;
        Ok(said.lines().next().with_context(|| format!("there is no container of {service}"))?.to_owned())
    }
}
