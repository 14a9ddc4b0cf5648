//! `make bugs`: bugs, kept as patches. Each is applied to the working tree while the tests run that must fail, and reverted
//! however that ends. If they do not fail, the tests have a gap.

use std::fs::File;
use std::io::{Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use stack::install;
use stack::layout::{Layout, root};
use stack::supervisor::Supervisor;
use stack::test::start_servers;

#[derive(Debug, Args)]
pub struct Options {
    /// Only these bugs, by name.
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<String>,
}

const FOLDER: &str = "dev/trials/bugs";
/// How long a build and its tests may take: a bug may make a test wait for ever.
const TEST_TIMEOUT: Duration = Duration::from_secs(1_200);

/// A bug. Its patch begins with a header of these fields, which git skips.
#[derive(Debug)]
struct Bug {
    name: String,
    /// `Bug:` what is wrong, in a sentence.
    about: String,
    /// `Run:` the command that tests it.
    run: Vec<String>,
    /// `Fails:` tests that must fail, by their whole names.
    fails: Vec<String>,
    patch: PathBuf,
    touches: Vec<String>,
}

pub async fn run(options: &Options) -> Result<()> {
    let mut bugs = all()?;
    if let Some(unknown) = options.only.iter().find(|name| bugs.iter().all(|bug| bug.name != **name)) {
        bail!("there is no bug `{unknown}` in {FOLDER}");
    }
    bugs.retain(|bug| options.only.is_empty() || options.only.contains(&bug.name));
    bugs.iter().try_for_each(Bug::refuse_changes)?;
    install::ensure(&Layout::unit().tools).await?;
    let mut supervisor = Supervisor::default();
    let environment = start_servers(&mut supervisor).await?;
    // Installed before the first patch: none of these signals may kill us while a patch is applied.
    let (mut interrupt, mut hangup) = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = plant_all(&bugs, &environment) => outcome,
        why = supervisor.failure() => Err(anyhow!(why)),
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = hangup.recv() => Err(anyhow!("the terminal is gone")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    supervisor.stop().await;
    outcome
}

async fn plant_all(bugs: &[Bug], environment: &[(&str, String)]) -> Result<()> {
    let mut missed = Vec::new();
    for bug in bugs {
        print!("{:<26} ", bug.name);
        stdout().flush()?;
        let begun = Instant::now();
        bug.apply(&[])?;
        let planted = Planted(bug);
        let said = bug.test(environment).await;
        drop(planted);
        bug.refuse_changes().context("it was not reverted")?;
        match said.and_then(|said| bug.judge(&said)) {
            Ok(()) => println!("caught by {} in {:.0} s", bug.fails.join(", "), begun.elapsed().as_secs_f64()),
            Err(why) => {
                println!("NOT CAUGHT in {:.0} s ({}): {why:#}", begun.elapsed().as_secs_f64(), bug.about);
                missed.push(bug.name.as_str());
            }
        }
    }
    ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    Ok(())
}

/// All bugs, by name.
fn all() -> Result<Vec<Bug>> {
    let entries = std::fs::read_dir(root().join(FOLDER))?.map(|entry| Ok(entry?.path()));
    let mut patches = entries.collect::<std::io::Result<Vec<_>>>()?;
    patches.sort();
    patches.iter().map(|patch| Bug::read(patch).with_context(|| patch.display().to_string())).collect()
}

impl Bug {
    fn read(patch: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(patch)?;
        let (head, _) = text.split_once("\n--- a/").context("it changes nothing")?;
        let field = |name| head.lines().filter_map(move |line| line.strip_prefix(name)).map(str::trim);
        let run = field("Run:").next().context("it does not say `Run:`")?;
        let touches = text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        let bug = Self {
            name: patch.file_stem().context("a name")?.to_string_lossy().into_owned(),
            about: field("Bug:").next().context("it does not say `Bug:`")?.to_owned(),
            run: run.split_whitespace().map(str::to_owned).collect(),
            fails: field("Fails:").map(str::to_owned).collect(),
            patch: patch.to_owned(),
            touches: touches.map(str::to_owned).collect(),
        };
        ensure!(bug.run.starts_with(&["cargo".to_owned(), "test".to_owned()]), "what it runs is not `cargo test`");
        ensure!(!bug.fails.is_empty(), "it does not say `Fails:`");
        Ok(bug)
    }

    /// Applies the patch, reverts it (`-R`), or checks whether it applies (`--check`).
    fn apply(&self, arguments: &[&str]) -> Result<()> {
        git(&[&["apply"], arguments, &[&*self.patch.to_string_lossy()]].concat()).map(drop)
    }

    /// Uncommitted changes could be lost when the patch is reverted.
    fn refuse_changes(&self) -> Result<()> {
        let touches: Vec<_> = self.touches.iter().map(String::as_str).collect();
        let changed = git(&[&["status", "--porcelain", "--"], &touches[..]].concat())?;
        ensure!(changed.is_empty(), "the files of {} have uncommitted changes:\n{changed}", self.name);
        Ok(())
    }

    /// Whether all tests that must fail did. A test without a result did not exist, build or finish: that is an error of the
    /// patch.
    fn judge(&self, said: &str) -> Result<()> {
        let ended = |name: &str, how| said.lines().any(|line| line == format!("test {name} ... {how}"));
        for name in &self.fails {
            ensure!(!ended(name, "ok"), "{name} succeeds");
            ensure!(ended(name, "FAILED"), "{name} did not run; see {}", self.log().display());
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        Layout::unit().log(&format!("bug-{}", self.name))
    }

    /// The output of its tests.
    async fn test(&self, environment: &[(&str, String)]) -> Result<String> {
        let (log, mut command) = (self.log(), tokio::process::Command::new(&self.run[0]));
        std::fs::create_dir_all(log.parent().context("a folder")?)?;
        let file = File::create(&log)?;
        command.args(&self.run[1..]).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(root());
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut group = Group(command.spawn()?);
        let ended = tokio::time::timeout(TEST_TIMEOUT, group.0.wait()).await;
        ended.with_context(|| format!("its tests do not end; see {}", log.display()))??;
        Ok(std::fs::read_to_string(&log)?)
    }
}

/// A bug that is applied to the working tree until this is dropped.
struct Planted<'a>(&'a Bug);

impl Drop for Planted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.apply(&["-R"]) {
            eprintln!("{} is still in {}: {error:#}", self.0.name, self.0.touches.join(", "));
        }
    }
}

/// A process group, which is killed when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // After `wait`, the process has no id, and its group has ended.
        if let Some(pid) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

/// In a separate process group: Ctrl-C is for us, and git must finish then.
fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(root()).stdin(Stdio::null()).process_group(0).output();
    let output = output.context("git cannot be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`git {}` failed:\n{said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A patch must change together with the code that it patches.
    #[test]
    fn every_bug_can_still_be_planted() {
        let bugs = all().expect("the headers can be read");
        assert!(bugs.len() >= 6, "{bugs:?}");
        for bug in bugs {
            bug.apply(&["--check"]).unwrap_or_else(|error| panic!("{} ({}): {error:#}", bug.name, bug.about));
            for name in &bug.fails {
                let name = name.rsplit("::").next().unwrap_or_default();
                let found = git(&["grep", "--fixed-strings", &format!("async fn {name}("), "--", "*tests/*"]);
                assert!(found.is_ok(), "{}: there is no test {name}", bug.name);
            }
            let failed: String = bug.fails.iter().map(|name| format!("test {name} ... FAILED\n")).collect();
            bug.judge(&failed).expect("noticed");
            bug.judge(&failed.replacen("FAILED", "ok", 1)).expect_err("not noticed");
            bug.judge("error[E0308]: mismatched types\n").expect_err("not built");
        }
    }
}
