//! Starts processes, restarts those that die, and stops them all in reverse order.
//!
//! A child dies with the supervisor, however that ends. One that dies unasked is started again, later each time; five such
//! deaths within a minute end everything.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(30);
const DEATHS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The account to run as; none is ours.
    pub user: Option<&'static str>,
    /// Where it listens once it is ready.
    pub port: u16,
    pub ready: Ready,
    pub log: PathBuf,
    /// How it is asked to stop.
    pub stop: Signal,
}

/// When a child can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Listening,
    /// Postgres listens before it has recovered.
    TakesQueries,
    /// A role listens before it knows the keys of tokens, and says at `/readyz` when it serves.
    SaysSo,
}

impl Ready {
    async fn is(self, port: u16) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            return false;
        }
        match self {
            Self::Listening => true,
            Self::TakesQueries => {
                let url = format!("postgres://postgres@{address}/postgres");
                match PgConnection::connect(&url).await {
                    Ok(connection) => connection.close().await.is_ok(),
                    Err(_) => false,
                }
            }
            Self::SaysSo => {
                let answer = reqwest::get(format!("http://{address}/readyz")).await;
                answer.is_ok_and(|answer| answer.status().is_success())
            }
        }
    }
}

/// What may be asked of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ends it at once; it is started again.
    Kill,
    /// Asks it to stop; it stays so.
    Stop,
    Start,
    /// Freezes it.
    Pause,
    Resume,
}

type Reply = oneshot::Sender<Result<u32>>;

struct Running {
    spec: Spec,
    orders: mpsc::Sender<(Order, Reply)>,
    task: JoinHandle<()>,
}

/// All children. Dropping it leaves them to the kernel, which ends them with us.
pub struct Supervisor {
    children: Vec<Running>,
    failures: mpsc::Sender<String>,
    failed: mpsc::Receiver<String>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (failures, failed) = mpsc::channel(1);
        Self { children: vec![], failures, failed }
    }
}

impl Supervisor {
    /// Starts a child and waits until it is ready.
    pub async fn start(&mut self, spec: Spec) -> Result<()> {
        if let Some(folder) = spec.log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        File::create(&spec.log)?;
        let child = spawn_ready(&spec).await?;
        let (orders, inbox) = mpsc::channel(1);
        let task = tokio::spawn(supervise(spec.clone(), child, inbox, self.failures.clone()));
        self.children.push(Running { spec, orders, task });
        Ok(())
    }

    /// Does what is asked, and says the child's process id (0: there is none).
    pub async fn order(&self, name: &str, order: Order) -> Result<u32> {
        let child = self.children.iter().find(|child| child.spec.name == name);
        let child = child.with_context(|| format!("there is no child `{name}`"))?;
        let (reply, answer) = oneshot::channel();
        child.orders.send((order, reply)).await.map_err(|_| anyhow!("{name} is not supervised any more"))?;
        answer.await?
    }

    /// Why everything must end, once it must.
    pub async fn failure(&mut self) -> String {
        // We hold a sender ourselves, so the channel never closes.
        self.failed.recv().await.unwrap_or_default()
    }

    /// Stops everything, the last started first.
    pub async fn stop(mut self) {
        while let Some(child) = self.children.pop() {
            let (reply, answer) = oneshot::channel();
            if child.orders.send((Order::Stop, reply)).await.is_ok() {
                answer.await.ok();
            }
            drop(child.orders);
            child.task.await.ok();
        }
    }
}

fn spawn(spec: &Spec) -> Result<Child> {
    let log = OpenOptions::new().append(true).create(true).open(&spec.log)?;
    let mut command = Command::new("setpriv");
    // The child ends when we do, whatever ends us.
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = spec.user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(&spec.program).args(&spec.arguments);
    command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
    // Ctrl-C is for us; we stop the children in order.
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{} cannot be started ({})", spec.name, spec.program.display()))
}

/// Waits until the child can be used, or is gone.
async fn spawn_ready(spec: &Spec) -> Result<Child> {
    let mut child = spawn(spec)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("{} ended at once ({status}). It said:\n{}", spec.name, last_lines(spec));
        }
        // One that takes a connection and says nothing is not ready either.
        if tokio::time::timeout(ANSWERS_WITHIN, spec.ready.is(spec.port)).await.unwrap_or(false) {
            return Ok(child);
        }
        if begun.elapsed() > READY_WITHIN {
            signal(&child, Signal::KILL);
            bail!("{} was not ready within {READY_WITHIN:?}. It said:\n{}", spec.name, last_lines(spec));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn last_lines(spec: &Spec) -> String {
    let said = std::fs::read_to_string(&spec.log).unwrap_or_default();
    let lines: Vec<_> = said.lines().rev().take(10).collect();
    lines.into_iter().rev().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // One that has just died cannot be signalled, which is fine.
        kill_process(pid, signal).ok();
    }
}

async fn supervise(
    spec: Spec,
    first: Child,
    mut inbox: mpsc::Receiver<(Order, Reply)>,
    failures: mpsc::Sender<String>,
) {
    let (mut child, mut deaths) = (Some(first), VecDeque::<Instant>::new());
    loop {
        let order = match child.as_mut() {
            None => inbox.recv().await,
            Some(running) => tokio::select! {
                order = inbox.recv() => order,
                status = running.wait() => {
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    eprintln!("{} died ({status}). It said:\n{}", spec.name, last_lines(&spec));
                    match start_again(&spec, &mut deaths).await {
                        Ok(running) => child = Some(running),
                        Err(why) => {
                            failures.send(why).await.ok();
                            return;
                        }
                    }
                    continue;
                }
            },
        };
        let Some((order, reply)) = order else {
            if let Some(running) = child {
                end(&spec, running).await;
            }
            return;
        };
        let done = obey(&spec, &mut child, order).await;
        reply.send(done.map(|()| child.as_ref().and_then(Child::id).unwrap_or(0))).ok();
    }
}

/// Until it is ready, or has died too often.
async fn start_again(spec: &Spec, deaths: &mut VecDeque<Instant>) -> Result<Child, String> {
    loop {
        deaths.push_back(Instant::now());
        deaths.retain(|death| death.elapsed() < WITHIN);
        if deaths.len() >= DEATHS {
            return Err(format!("{} died {DEATHS} times within a minute", spec.name));
        }
        tokio::time::sleep(Duration::from_millis(100 << deaths.len())).await;
        match spawn_ready(spec).await {
            Ok(child) => return Ok(child),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

async fn obey(spec: &Spec, child: &mut Option<Child>, order: Order) -> Result<()> {
    match (order, child.as_mut()) {
        (Order::Kill, Some(running)) => {
            signal(running, Signal::KILL);
            running.wait().await?;
            *child = Some(spawn_ready(spec).await?);
        }
        (Order::Stop, Some(_)) => {
            if let Some(running) = child.take() {
                end(spec, running).await;
            }
        }
        (Order::Start, None) => *child = Some(spawn_ready(spec).await?),
        (Order::Pause, Some(running)) => signal(running, Signal::STOP),
        (Order::Resume, Some(running)) => signal(running, Signal::CONT),
        (Order::Stop, None) | (Order::Start, Some(_)) => {}
        (Order::Kill | Order::Pause | Order::Resume, None) => bail!("{} is not running", spec.name),
    }
    Ok(())
}

/// Politely, and after a while not.
async fn end(spec: &Spec, mut child: Child) {
    signal(&child, Signal::CONT);
    signal(&child, spec.stop);
    if tokio::time::timeout(Duration::from_secs(25), child.wait()).await.is_err() {
        eprintln!("{} did not stop; it is ended", spec.name);
        signal(&child, Signal::KILL);
        child.wait().await.ok();
    }
}
