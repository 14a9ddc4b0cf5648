//! What to run, and when it can be used.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use crate::shared_memory;

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
    /// The lock file of a Postgres: a new one starts when the sessions of the one before have let go of its memory.
    pub lock: Option<PathBuf>,
}

impl Spec {
    /// Whether the memory of the one before is still held by a session of it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.lock.as_deref().is_some_and(shared_memory::is_in_use)
    }
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
    pub(crate) async fn is(self, port: u16) -> bool {
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
