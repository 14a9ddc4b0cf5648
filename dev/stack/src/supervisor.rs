//! Starts processes, restarts those that die, and stops them all in reverse order.
//!
//! A child dies with the supervisor, however that ends. One that dies unasked is started again, later each time; five such
//! deaths within a minute end everything, and so do five in a row before it was ready, however long each took. Orders
//! are followed at any time: nobody waits for a child to become ready but who asked for that.

use std::fs::{File, OpenOptions};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use crate::spec::{Ready, Spec};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(30);
const DEATHS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);

/// What may be asked of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ends it at once and starts it again. The answer comes when it is ready.
    Kill,
    /// The same, and the answer comes at once.
    KillNow,
    /// Ends it at once; it stays so.
    End,
    /// Asks it to stop; it stays so.
    Stop,
    /// The answer comes when it is ready.
    Start,
    /// Freezes it.
    Pause,
    Resume,
}

type Reply = oneshot::Sender<Result<u32>>;

struct Supervised {
    name: &'static str,
    /// How often it died unasked.
    deaths: Arc<AtomicU32>,
    orders: mpsc::Sender<(Order, Reply)>,
    task: JoinHandle<()>,
}

/// All children. Dropping it leaves them to the kernel, which ends them with us.
pub struct Supervisor {
    children: Vec<Supervised>,
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
        let (name, (orders, inbox)) = (spec.name, mpsc::channel(1));
        let unasked = Arc::new(AtomicU32::new(0));
        let charge = Charge { spec, state: State::Stopped, asked: None, deaths: vec![], unasked: unasked.clone() };
        let task = tokio::spawn(charge.supervise(inbox, self.failures.clone()));
        self.children.push(Supervised { name, deaths: unasked, orders, task });
        self.order(name, Order::Start).await.map(drop)
    }

    /// Does what is asked, and says the child's process id (0: there is none).
    pub async fn order(&self, name: &str, order: Order) -> Result<u32> {
        let child = self.children.iter().find(|child| child.name == name);
        let child = child.with_context(|| format!("there is no child `{name}`"))?;
        let (reply, answer) = oneshot::channel();
        child.orders.send((order, reply)).await.map_err(|_| anyhow!("{name} is not supervised any more"))?;
        answer.await.with_context(|| format!("{name} was told something else before it was ready"))?
    }

    /// How often children died although nobody asked for it, by name.
    pub fn deaths(&self) -> Vec<(&'static str, u32)> {
        self.children.iter().map(|child| (child.name, child.deaths.load(Ordering::Relaxed))).collect()
    }

    /// Why everything must end, once it must.
    pub async fn failure(&mut self) -> String {
        // We hold a sender ourselves, so the channel never closes.
        self.failed.recv().await.unwrap_or_default()
    }

    /// Stops everything, the last started first.
    pub async fn stop(mut self) {
        while let Some(child) = self.children.pop() {
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
async fn until_ready(spec: &Spec, child: &mut Child) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("{} ended at once ({status}). It said:\n{}", spec.name, last_lines(spec));
        }
        // One that takes a connection and says nothing is not ready either.
        if tokio::time::timeout(ANSWERS_WITHIN, spec.ready.is(spec.port)).await.unwrap_or(false) {
            return Ok(());
        }
        if begun.elapsed() > READY_WITHIN {
            child.kill().await?;
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

/// One child, through all its lives.
struct Charge {
    spec: Spec,
    state: State,
    /// Who waits for it to be ready.
    asked: Option<Reply>,
    /// The latest ones.
    deaths: Vec<Instant>,
    unasked: Arc<AtomicU32>,
}

enum State {
    /// As it was asked to be.
    Stopped,
    /// Processes that the one before had started are still ending.
    Waiting {
        since: Instant,
    },
    /// It is started again a little later.
    Dead {
        until: Instant,
    },
    Starting(Child),
    Ready(Child),
}

impl State {
    fn child(&mut self) -> Option<&mut Child> {
        match self {
            Self::Stopped | Self::Waiting { .. } | Self::Dead { .. } => None,
            Self::Starting(child) | Self::Ready(child) => Some(child),
        }
    }
}

/// Why a child is not started again.
struct GivenUp(String);

impl Charge {
    async fn supervise(mut self, mut inbox: mpsc::Receiver<(Order, Reply)>, failures: mpsc::Sender<String>) {
        loop {
            let lived = tokio::select! {
                order = inbox.recv() => match order {
                    Some((order, reply)) => self.obey(order, reply).await,
                    None => return self.stop().await,
                },
                lived = self.live() => lived,
            };
            if let Err(GivenUp(why)) = lived {
                // One reason is enough to end everything.
                failures.try_send(why).ok();
                return;
            }
        }
    }

    /// Until something happens to it. May be left at any moment, for an order.
    async fn live(&mut self) -> Result<(), GivenUp> {
        match &mut self.state {
            State::Stopped => std::future::pending().await,
            State::Waiting { since } => {
                let since = *since;
                tokio::time::sleep(LOOK_AGAIN).await;
                if !self.spec.is_in_use() {
                    return self.spawn();
                }
                if since.elapsed() > READY_WITHIN {
                    return self.die(anyhow!("sessions of the {} before do not end", self.spec.name));
                }
                Ok(())
            }
            State::Dead { until } => {
                tokio::time::sleep_until((*until).into()).await;
                self.begin()
            }
            State::Starting(child) => match until_ready(&self.spec, child).await {
                Ok(()) => {
                    self.answer();
                    if let State::Starting(child) = std::mem::replace(&mut self.state, State::Stopped) {
                        self.state = State::Ready(child);
                    }
                    Ok(())
                }
                Err(error) => self.die(error),
            },
            State::Ready(child) => {
                let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
                // What never was ready is counted however long it took.
                self.deaths.retain(|death| death.elapsed() < WITHIN);
                self.die(anyhow!("{} died ({status}). It said:\n{}", self.spec.name, last_lines(&self.spec)))
            }
        }
    }

    fn begin(&mut self) -> Result<(), GivenUp> {
        if self.spec.is_in_use() {
            self.state = State::Waiting { since: Instant::now() };
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
            Err(error) => self.die(error),
        }
    }

    fn die(&mut self, error: Error) -> Result<(), GivenUp> {
        match self.asked.take() {
            Some(reply) => drop(reply.send(Err(error))),
            None => eprintln!("{error:#}"),
        }
        self.deaths.push(Instant::now());
        self.unasked.fetch_add(1, Ordering::Relaxed);
        let (name, log) = (self.spec.name, self.spec.log.display());
        if self.deaths.len() >= DEATHS {
            return Err(GivenUp(format!("{name} died {DEATHS} times in a row, and is given up; see {log}")));
        }
        self.state = State::Dead { until: Instant::now() + Duration::from_millis(100 << self.deaths.len()) };
        Ok(())
    }

    /// Says the process id to whoever asked.
    fn answer(&mut self) {
        if let Some(reply) = self.asked.take() {
            reply.send(Ok(self.state.child().and_then(|child| child.id()).unwrap_or(0))).ok();
        }
    }

    async fn obey(&mut self, order: Order, reply: Reply) -> Result<(), GivenUp> {
        // Whoever waited for something else waits in vain.
        self.asked = Some(reply);
        match (order, self.state.child()) {
            (Order::Kill, Some(child)) => {
                child.kill().await.ok();
                return self.begin();
            }
            (Order::KillNow, Some(child)) => {
                child.kill().await.ok();
                self.begin()?;
            }
            (Order::Start, None) => return self.begin(),
            (Order::Start, Some(_)) => {
                if matches!(self.state, State::Starting(_)) {
                    return Ok(());
                }
            }
            (Order::End, child) => {
                if let Some(child) = child {
                    child.kill().await.ok();
                }
                self.state = State::Stopped;
            }
            (Order::Stop, _) => self.stop().await,
            (Order::Pause, Some(child)) => signal(child, Signal::STOP),
            (Order::Resume, Some(child)) => signal(child, Signal::CONT),
            (Order::Kill | Order::KillNow | Order::Pause | Order::Resume, None) => {
                if let Some(reply) = self.asked.take() {
                    reply.send(Err(anyhow!("{} is not running", self.spec.name))).ok();
                }
            }
        }
        self.answer();
        Ok(())
    }

    /// Politely, and after a while not.
    async fn stop(&mut self) {
        if let Some(child) = self.state.child() {
            signal(child, Signal::CONT);
            signal(child, self.spec.stop);
            if tokio::time::timeout(Duration::from_secs(25), child.wait()).await.is_err() {
                eprintln!("{} did not stop; it is ended", self.spec.name);
                child.kill().await.ok();
            }
        }
        self.state = State::Stopped;
    }
}
