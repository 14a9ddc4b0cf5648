//! Tests of the supervisor, with real processes.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use stack::parts::answers;
use stack::postgres::{Fsync, trusted};
use stack::supervisor::{Command, Ready, Spec, Supervisor};
use uuid::Uuid;

/// A shell script as a child.
fn shell(script: &str) -> Result<(Spec, PathBuf)> {
    let folder = std::env::temp_dir().join(format!("souk-supervisor-{}", Uuid::now_v7()));
    // Free now, and the kernel does not assign it again soon.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let spec = Spec {
        name: "child",
        program: "sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: vec![
            ("PORT".to_owned(), port.to_string()),
            ("FOLDER".to_owned(), folder.to_string_lossy().into_owned()),
        ],
        user: None,
        port,
        ready: Ready::Listening,
        log: folder.join("log"),
        stop: Signal::TERM,
        lock: None,
    };
    Ok((spec, folder))
}

/// Accepts connections until it is stopped.
const LISTENER: &str = r#"exec perl -MIO::Socket::INET -e '
    my $socket = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1:$ENV{PORT}", ReuseAddr => 1) or die $@;
    while (my $connection = $socket->accept) { close $connection }'"#;

/// Kills a child without the supervisor.
fn kill(pid: u32) -> Result<()> {
    signal(pid.cast_signed(), Signal::KILL)
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid).context("a process")?, signal)?)
}

#[tokio::test]
async fn a_child_that_cannot_start_is_not_restarted_after_five_crashes() -> Result<()> {
    let (spec, folder) = shell("echo life >> $FOLDER/lives; echo it is broken; exit 1")?;
    let mut supervisor = Supervisor::default();
    let error = supervisor.start(spec).await.err().context("it cannot start")?.to_string();
    ensure!(error.contains("child ended before it was ready") && error.contains("it is broken"), "{error}");
    let why = supervisor.failure().await;
    ensure!(why.starts_with("child crashed 5 times"), "{why}");
    ensure!(std::fs::read_to_string(folder.join("lives"))?.lines().count() == 5);
    supervisor.stop().await;
    Ok(std::fs::remove_dir_all(folder)?)
}

#[tokio::test]
async fn a_child_that_crashes_is_restarted_and_one_that_was_stopped_is_not() -> Result<()> {
    let (spec, folder) = shell(LISTENER)?;
    let (mut supervisor, port) = (Supervisor::default(), spec.port);
    supervisor.start(spec).await?;
    let first = supervisor.send("child", Command::Start).await?;
    kill(first)?;
    // Between two processes a command fails, and does not prevent the restart.
    let second = loop {
        match supervisor.send("child", Command::Resume).await {
            Ok(pid) if pid != first && pid != 0 => break pid,
            _ => tokio::task::yield_now().await,
        }
    };
    ensure!(supervisor.send("child", Command::Start).await? == second && answers(port), "it is ready");

    let third = supervisor.send("child", Command::KillNow).await?;
    let fourth = supervisor.send("child", Command::KillNow).await?;
    ensure!(supervisor.send("child", Command::Start).await? == fourth && answers(port) && third != fourth);
    ensure!(supervisor.send("child", Command::Stop).await? == 0 && !answers(port));
    ensure!(supervisor.send("child", Command::Kill).await.is_err(), "there is nothing to kill");
    ensure!(supervisor.send("child", Command::Start).await? != 0 && answers(port));
    supervisor.stop().await;
    ensure!(!answers(port));
    Ok(std::fs::remove_dir_all(folder)?)
}

#[tokio::test]
async fn a_child_that_is_not_ready_stops_at_once() -> Result<()> {
    let (mut spec, folder) = shell(&format!("test -e $FOLDER/unready && exec sleep 1000; {LISTENER}"))?;
    let mut supervisor = Supervisor::default();
    supervisor.start(spec.clone()).await?;
    // The second child never becomes ready, and its caller stops waiting.
    std::fs::write(folder.join("unready"), "")?;
    spec.name = "other";
    spec.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    spec.log = folder.join("other.log");
    let left = tokio::time::timeout(Duration::from_millis(200), supervisor.start(spec)).await;
    ensure!(left.is_err(), "it cannot be ready");
    kill(supervisor.send("child", Command::Resume).await?)?;

    let begun = Instant::now();
    supervisor.stop().await;
    ensure!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    Ok(std::fs::remove_dir_all(folder)?)
}

#[tokio::test]
async fn a_killed_postgres_restarts_when_its_last_session_has_ended() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("souk-supervisor-{}", Uuid::now_v7()));
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut supervisor = Supervisor::default();
    supervisor.start(trusted(&folder, port, folder.join("log"), Fsync::Off).await?).await?;
    let mut session = PgConnection::connect(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await?;
    let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await?;

    signal(pid, Signal::STOP)?;
    let started = supervisor.send("postgres", Command::KillNow).await?;
    signal(pid, Signal::CONT)?;
    ensure!(started == 0, "it was started beside a session of the last process");
    ensure!(supervisor.send("postgres", Command::Start).await? != 0 && answers(port));
    ensure!(supervisor.crashes() == [("postgres", 0)], "{:?}", supervisor.crashes());
    supervisor.stop().await;
    Ok(std::fs::remove_dir_all(folder)?)
}
