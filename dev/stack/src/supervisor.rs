//! Starts child processes, restarts those that crash, and stops them all in reverse order.
//!
//! A child never outlives the supervisor. A child that crashes is restarted with backoff; after five crashes within a minute, or
//! five in a row before it was ready, the supervisor reports a failure. A child executes commands at any time, also while a
//! caller waits for it to be ready.

use std::fs::{File, OpenOptions};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use crate::spec::{Ready, Spec};

const READY_WITHIN: Duration = Duration::from_secs(60);
const PROBE_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(30);
const MAX_CRASHES: usize = 5;
const CRASH_WINDOW: Duration = Duration::from_secs(60);

/// A command to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Kills and restarts it. The reply comes when it is ready.
    Kill,
    /// Kills and restarts it. The reply comes at once.
    KillNow,
    /// Kills it; it stays stopped.
    End,
    /// Stops it by the signal of its specification; it stays stopped.
    Stop,
    /// Starts it. The reply comes when it is ready.
    Start,
    /// Freezes it.
    Pause,
    Resume,
}

type Reply = oneshot::Sender<Result<u32>>;

/// The supervisor's handle of a child.
struct Handle {
    name: &'static str,
    /// How often it crashed.
    crashes: Arc<AtomicU32>,
    commands: mpsc::Sender<(Command, Reply)>,
    task: JoinHandle<()>,
}

/// All children. If it is dropped without [`Supervisor::stop`], the kernel kills them when we end.
pub struct Supervisor {
    children: Vec<Handle>,
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
        let (name, (commands, inbox)) = (spec.name, mpsc::channel(1));
        let crashes = Arc::new(AtomicU32::new(0));
        let child = Child { spec, state: State::Stopped, waiting: None, recent: vec![], crashes: crashes.clone() };
        let task = tokio::spawn(child.supervise(inbox, self.failures.clone()));
        self.children.push(Handle { name, crashes, commands, task });
        self.send(name, Command::Start).await.map(drop)
    }

    /// Sends a command to a child. Returns the child's process id afterwards, 0 if it does not run.
    pub async fn send(&self, name: &str, command: Command) -> Result<u32> {
        let child = self.children.iter().find(|child| child.name == name);
        let child = child.with_context(|| format!("there is no child `{name}`"))?;
        let (reply, answer) = oneshot::channel();
        child.commands.send((command, reply)).await.map_err(|_| anyhow!("{name} is not supervised any more"))?;
        answer.await.with_context(|| format!("{name} received another command before it was ready"))?
    }

    /// How often each child crashed.
    pub fn crashes(&self) -> Vec<(&'static str, u32)> {
        self.children.iter().map(|child| (child.name, child.crashes.load(Ordering::Relaxed))).collect()
    }

    /// Waits until a child is not restarted any more; returns the reason.
    pub async fn failure(&mut self) -> String {
        // We hold a sender ourselves, so the channel never closes.
        self.failed.recv().await.unwrap_or_default()
    }

    /// Stops everything, the last started first.
    pub async fn stop(mut self) {
        while let Some(child) = self.children.pop() {
            drop(child.commands);
            child.task.await.ok();
        }
    }
}

fn spawn(spec: &Spec) -> Result<process::Child> {
    let log = OpenOptions::new().append(true).create(true).open(&spec.log)?;
    let mut command = process::Command::new("setpriv");
    // The kernel kills the child when we end, however that happens.
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = spec.user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(&spec.program).args(&spec.arguments);
    command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
    // The terminal must not send Ctrl-C to the children; we stop them in order.
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{} cannot be started ({})", spec.name, spec.program.display()))
}

/// Waits until the child is ready; fails if it ends before that.
async fn until_ready(spec: &Spec, child: &mut process::Child) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("{} ended before it was ready ({status}). Its last lines:\n{}", spec.name, last_lines(spec));
        }
        // A child that accepts a connection and does not respond is not ready.
        if tokio::time::timeout(PROBE_WITHIN, spec.is_ready()).await.unwrap_or(false) {
            return Ok(());
        }
        if begun.elapsed() > READY_WITHIN {
            child.kill().await?;
            bail!("{} was not ready within {READY_WITHIN:?}. Its last lines:\n{}", spec.name, last_lines(spec));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn last_lines(spec: &Spec) -> String {
    let said = std::fs::read_to_string(&spec.log).unwrap_or_default();
    let lines: Vec<_> = said.lines().rev().take(10).collect();
    lines.into_iter().rev().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn signal(child: &process::Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It fails if the child has just ended.
        kill_process(pid, signal).ok();
    }
}

/// One child, whose process may be started many times.
struct Child {
    spec: Spec,
    state: State,
    /// The caller that waits for the last command.
    waiting: Option<Reply>,
    /// The times of recent crashes.
    recent: Vec<Instant>,
    crashes: Arc<AtomicU32>,
}

enum State {
    /// Stopped by a command.
    Stopped,
    /// Sessions of its last process still run.
    Draining {
        since: Instant,
    },
    /// It crashed, and is restarted at this time.
    Backoff {
        until: Instant,
    },
    Starting(process::Child),
    Ready(process::Child),
}

impl State {
    fn child(&mut self) -> Option<&mut process::Child> {
        match self {
            Self::Stopped | Self::Draining { .. } | Self::Backoff { .. } => None,
            Self::Starting(child) | Self::Ready(child) => Some(child),
        }
    }
}

/// Why a child is not restarted any more.
struct GivenUp(String);

impl Child {
    async fn supervise(mut self, mut inbox: mpsc::Receiver<(Command, Reply)>, failures: mpsc::Sender<String>) {
        loop {
            let outcome = tokio::select! {
                command = inbox.recv() => match command {
                    Some((command, reply)) => self.execute(command, reply).await,
                    None => return self.stop().await,
                },
                outcome = self.next_change() => outcome,
            };
            if let Err(GivenUp(why)) = outcome {
                // The first failure is enough.
                failures.try_send(why).ok();
                return;
            }
        }
    }

    /// Waits for the next change of state. Cancel-safe: a command interrupts it at any await.
    async fn next_change(&mut self) -> Result<(), GivenUp> {
        match &mut self.state {
            State::Stopped => std::future::pending().await,
            State::Draining { since } => {
                let since = *since;
                tokio::time::sleep(LOOK_AGAIN).await;
                if !self.spec.is_in_use() {
                    return self.spawn();
                }
                if since.elapsed() > READY_WITHIN {
                    return self.crash(anyhow!("sessions of the last {} do not end", self.spec.name));
                }
                Ok(())
            }
            State::Backoff { until } => {
                tokio::time::sleep_until((*until).into()).await;
                self.begin()
            }
            State::Starting(child) => match until_ready(&self.spec, child).await {
                Ok(()) => {
                    self.reply();
                    if let State::Starting(child) = std::mem::replace(&mut self.state, State::Stopped) {
                        self.state = State::Ready(child);
                    }
                    Ok(())
                }
                Err(error) => self.crash(error),
            },
            State::Ready(child) => {
                let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
                // Crashes before it was ready count regardless of time, so older ones are removed only here.
                self.recent.retain(|crash| crash.elapsed() < CRASH_WINDOW);
                self.crash(anyhow!(
                    "{} crashed ({status}). Its last lines:\n{}",
                    self.spec.name,
                    last_lines(&self.spec)
                ))
            }
        }
    }

    fn begin(&mut self) -> Result<(), GivenUp> {
        if self.spec.is_in_use() {
            self.state = State::Draining { since: Instant::now() };
            return Ok(());
        }
        self.spawn()
    }

    fn spawn(&mut self) -> Result<(), GivenUp> {
        match spawn(&self.spec) {
            Ok(child) => {
                self.state = State::Starting(child);
                Ok(())
            }
            Err(error) => self.crash(error),
        }
    }

    fn crash(&mut self, error: Error) -> Result<(), GivenUp> {
        match self.waiting.take() {
            Some(reply) => drop(reply.send(Err(error))),
            None => eprintln!("{error:#}"),
        }
        self.recent.push(Instant::now());
        self.crashes.fetch_add(1, Ordering::Relaxed);
        let (name, log) = (self.spec.name, self.spec.log.display());
        if self.recent.len() >= MAX_CRASHES {
            return Err(GivenUp(format!(
                "{name} crashed {MAX_CRASHES} times and is not restarted any more; see {log}"
            )));
        }
        self.state = State::Backoff { until: Instant::now() + Duration::from_millis(100 << self.recent.len()) };
        Ok(())
    }

    /// Replies to the caller that waits, with the process id.
    fn reply(&mut self) {
        if let Some(reply) = self.waiting.take() {
            reply.send(Ok(self.state.child().and_then(|child| child.id()).unwrap_or(0))).ok();
        }
    }

    async fn execute(&mut self, command: Command, reply: Reply) -> Result<(), GivenUp> {
        // A caller that still waits for an earlier command gets an error, as its reply is dropped.
        self.waiting = Some(reply);
        match (command, self.state.child()) {
            (Command::Kill, Some(child)) => {
                child.kill().await.ok();
                return self.begin();
            }
            (Command::KillNow, Some(child)) => {
                child.kill().await.ok();
                self.begin()?;
            }
            (Command::Start, None) => return self.begin(),
            (Command::Start, Some(_)) => {
                if matches!(self.state, State::Starting(_)) {
                    return Ok(());
                }
            }
            (Command::End, child) => {
                if let Some(child) = child {
                    child.kill().await.ok();
                }
                self.state = State::Stopped;
            }
            (Command::Stop, _) => self.stop().await,
            (Command::Pause, Some(child)) => signal(child, Signal::STOP),
            (Command::Resume, Some(child)) => signal(child, Signal::CONT),
            (Command::Kill | Command::KillNow | Command::Pause | Command::Resume, None) => {
                if let Some(reply) = self.waiting.take() {
                    reply.send(Err(anyhow!("{} is not running", self.spec.name))).ok();
                }
            }
        }
        self.reply();
        Ok(())
    }

    /// Sends its signal, and SIGKILL after 25 seconds.
    async fn stop(&mut self) {
        if let Some(child) = self.state.child() {
            signal(child, Signal::CONT);
            signal(child, self.spec.stop);
            if tokio::time::timeout(Duration::from_secs(25), child.wait()).await.is_err() {
                eprintln!("{} did not stop; it is killed", self.spec.name);
                child.kill().await.ok();
            }
        }
        self.state = State::Stopped;
    }
}
