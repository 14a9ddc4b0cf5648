//! A whole stack for tests: `stack controlled` runs it and reads commands from standard input; [`Stack`] sends them.
//!
//! Commands, one per line: `kill NAME`, `kill-now NAME`, `stop NAME`, `start NAME`, `pause NAME`, `resume NAME`. The response is
//! `ok PID` or `error WHY`; that of `kill` and `start` comes when the process is ready and the edge sends requests to it. The
//! first line of output is `ready EMAIL PASSWORD`, with an operator's account. Closing standard input stops everything, so that
//! no process outlives the test.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::client::{Client, random_password};
use crate::install;
use crate::layout::{Build, Layout, Ports};
use crate::parts;
use crate::postgres::{Access, Fsync};
use crate::supervisor::{self, Supervisor};
use crate::up::create_operator;

#[derive(Debug, Args)]
pub struct Options {
    /// Whether Postgres flushes commits to the disk.
    #[arg(long, default_value = "off")]
    fsync: Fsync,
    /// Settings for `souk`, as NAME=VALUE, besides rate limits that no test reaches.
    #[arg(long = "set", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Kafka and Postgres trust everybody, and `souk` talks to them in plain text.
    #[arg(long)]
    trusting: bool,
    /// Run the release build.
    #[arg(long)]
    release: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub async fn run(options: &Options) -> Result<()> {
    let layout = Layout::test(if options.release { Build::Release } else { Build::Debug });
    layout.ports.check_free()?;
    install::ensure(&layout.tools).await?;
    if layout.home.exists() {
        std::fs::remove_dir_all(&layout.home)?;
    }
    let mut supervisor = Supervisor::default();
    let served = serve(options, &layout, &mut supervisor).await;
    supervisor.stop().await;
    served
}

async fn serve(options: &Options, layout: &Layout, supervisor: &mut Supervisor) -> Result<()> {
    let mut settings = parts::wide_limits();
    let access = if options.trusting { Access::Trusted } else { Access::Secured };
    if options.trusting {
        settings.extend(parts::trusting(layout));
    }
    settings.extend(options.settings.clone());
    parts::start_all(layout, supervisor, options.fsync, access, &settings, &|_| {}).await?;
    let password = random_password();
    create_operator(layout, &settings, "operator@souk.test", &password).await?;
    println!("ready operator@souk.test {password}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            why = supervisor.failure() => bail!(why),
        };
        let Some(line) = line else { return Ok(()) };
        match execute(layout, supervisor, &line).await {
            Ok(pid) => println!("ok {pid}"),
            Err(error) => println!("error {error:#}"),
        }
    }
}

async fn execute(layout: &Layout, supervisor: &Supervisor, line: &str) -> Result<u32> {
    let (command, name) = line.split_once(' ').context("the line is not a command and a name")?;
    let command = match command {
        "kill" => supervisor::Command::Kill,
        "kill-now" => supervisor::Command::KillNow,
        "stop" => supervisor::Command::Stop,
        "start" => supervisor::Command::Start,
        "pause" => supervisor::Command::Pause,
        "resume" => supervisor::Command::Resume,
        _ => bail!("`{command}` is not kill, kill-now, stop, start, pause or resume"),
    };
    let pid = supervisor.send(name, command).await?;
    if matches!(command, supervisor::Command::Kill | supervisor::Command::Start) {
        parts::edge_serves(layout).await?;
    }
    Ok(pid)
}

/// A stack that a test started; it ends with the test.
pub struct Stack {
    pub layout: Layout,
    pub operator: (String, String),
    lines: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    process: Child,
}

impl Stack {
    /// `arguments` are those of `stack controlled`.
    pub async fn start(build: Build, arguments: &[&str]) -> Result<Self> {
        let layout = Layout::test(build);
        let program = layout.program("stack");
        let mut command = Command::new(&program);
        command.arg("controlled").args((build == Build::Release).then_some("--release")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("{} cannot be run", program.display()))?;
        let (input, output) = process.stdin.take().zip(process.stdout.take()).context("its pipes are open")?;
        let mut lines = BufReader::new(output).lines();
        let operator = loop {
            let line = lines.next_line().await?.context("`stack controlled` ended before it was ready; see above")?;
            if let Some((email, password)) = line.strip_prefix("ready ").and_then(|rest| rest.split_once(' ')) {
                break (email.to_owned(), password.to_owned());
            }
        };
        Ok(Self { layout, operator, lines: Mutex::new((input, lines)), process })
    }

    /// Ends everything, and waits for it: ports and folders are free afterwards.
    pub async fn stop(self) -> Result<()> {
        let Self { lines, mut process, .. } = self;
        drop(lines);
        let status = process.wait().await?;
        ensure!(status.success(), "`stack controlled` ended with {status}; see above");
        Ok(())
    }

    pub fn ports(&self) -> Ports {
        self.layout.ports
    }

    /// Sends a command such as `kill souk`; returns the process id.
    pub async fn control(&self, command: &str) -> Result<u32> {
        let mut lines = self.lines.lock().await;
        lines.0.write_all(format!("{command}\n").as_bytes()).await?;
        let answer = lines.1.next_line().await?.context("`stack controlled` ended")?;
        let pid = answer.strip_prefix("ok ").and_then(|pid| pid.parse().ok());
        pid.with_context(|| format!("{command}: {answer}"))
    }

    pub async fn operator(&self) -> Result<Client> {
        Client::new(self.ports().edge()).sign_in(&self.operator.0, &self.operator.1).await
    }

    pub async fn customer(&self) -> Result<Client> {
        Client::customer(self.ports().edge()).await
    }
}
