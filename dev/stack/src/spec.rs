//! The specification of a child process, and when it is ready.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;

use crate::shared_memory;

/// The specification of a child process.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The account to run as; `None`: the same as ours.
    pub user: Option<&'static str>,
    /// The port on which it listens once it is ready.
    pub port: u16,
    pub ready: Ready,
    pub log: PathBuf,
    /// The signal that stops it.
    pub stop: Signal,
    /// The lock file of a Postgres: the next process starts when all sessions of the last one have ended.
    pub lock: Option<PathBuf>,
}

impl Spec {
    pub(crate) async fn is_ready(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            return false;
        }
        match self.ready {
            Ready::Listening => true,
            Ready::AcceptsQueries => {
                // Installed with every server.
                let mut pg_isready = Command::new(self.program.with_file_name("pg_isready"));
                pg_isready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
                let status = pg_isready.stdin(Stdio::null()).kill_on_drop(true).status().await;
                status.is_ok_and(|status| status.success())
            }
            Ready::ReportsReady => {
                let response = reqwest::get(format!("http://{address}/readyz")).await;
                response.is_ok_and(|response| response.status().is_success())
            }
        }
    }

    /// Whether a session of the last process still runs.
    pub(crate) fn is_in_use(&self) -> bool {
        self.lock.as_deref().is_some_and(shared_memory::is_in_use)
    }
}

/// When a child process is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Listening,
    /// Postgres listens before it has recovered.
    AcceptsQueries,
    /// A role listens before it knows the keys of tokens, and reports at `/readyz` when it serves.
    ReportsReady,
}
