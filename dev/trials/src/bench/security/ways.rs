//! Sends the same requests in several ways, which alternate, and compares their times and the CPU of the processes behind them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::{Process, median, percentile};
use stack::client::Client;

const ROUNDS: usize = 7;
/// All rounds of a way stay below the tests' limit of 100,000 calls of the account class per window.
const REQUESTS: u32 = 4_000;
const CONNECTIONS: u32 = 4;
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// No mail has it.
const UNKNOWN_TOKEN: &str = "unknown";

#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Reads the product with this id.
    Product(String),
    /// A call of the account class that costs little behind the edge.
    VerifyEmail,
}

impl Request {
    /// Fails unless the response comes from the service.
    async fn send(&self, client: &Client) -> Result<()> {
        match self {
            Self::Product(id) => {
                let found = client.get(&format!("/v1/products/{id}")).await?.ok()?;
                ensure!(found["product"]["productId"] == **id, "the response is another product: {found}");
            }
            Self::VerifyEmail => {
                let response = client.post("/v1/users:verifyEmail", json!({"token": UNKNOWN_TOKEN})).await?;
                let is_expected = response.status == StatusCode::BAD_REQUEST;
                if !is_expected || response.reason() != "MAIL_TOKEN_INVALID" {
                    bail!("{}: {}", response.status, response.body);
                }
            }
        }
        Ok(())
    }
}

/// A way by which requests are sent, and the processes whose CPU time they take, by name and id.
pub(super) struct Way {
    name: &'static str,
    request: Request,
    clients: Vec<Client>,
    processes: Vec<(&'static str, u32)>,
}

impl Way {
    pub(super) fn new(name: &'static str, port: u16, request: Request, processes: Vec<(&'static str, u32)>) -> Self {
        let clients = (0..CONNECTIONS).map(|_| Client::new(port).impatient()).collect();
        Self { name, request, clients, processes }
    }

    /// Waits until requests succeed, as an Envoy listens before it knows that a role is healthy.
    async fn until_it_serves(&self) -> Result<()> {
        let begun = Instant::now();
        let client = self.clients.first().context("a way has clients")?;
        while let Err(error) = self.request.send(client).await {
            if begun.elapsed() > STARTS_WITHIN {
                return Err(error).context(self.name);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Sends all requests of a round.
    async fn send(&self) -> Result<Vec<Duration>> {
        let mut tasks = JoinSet::new();
        for client in self.clients.clone() {
            let request = self.request.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..REQUESTS / CONNECTIONS {
                    let begun = Instant::now();
                    request.send(&client).await?;
                    times.push(begun.elapsed());
                }
                anyhow::Ok(times)
            });
        }
        let mut times = Vec::new();
        for outcome in tasks.join_all().await {
            times.append(&mut outcome.context(self.name)?);
        }
        Ok(times)
    }

    fn cpu_seconds(&self) -> Result<Vec<f64>> {
        self.processes.iter().map(|(_, pid)| Ok(Process::read(*pid)?.cpu_seconds)).collect()
    }

    /// The figures of one round, in the order of [`Measured::figures`].
    async fn round(&self) -> Result<Vec<f64>> {
        let before = self.cpu_seconds()?;
        let mut times = self.send().await?;
        let after = self.cpu_seconds()?;
        times.sort();
        let times = [0.5, 0.95].map(|share| percentile(&times, share).as_secs_f64() * 1e6);
        let cpu = after.iter().zip(before).map(|(after, before)| (after - before) * 1e6 / f64::from(REQUESTS));
        Ok(times.into_iter().chain(cpu).collect())
    }
}

/// The medians of a way, in microseconds: two percentiles of the time, and the CPU time per request of each process.
pub(super) struct Measured {
    names: Vec<String>,
    figures: Vec<f64>,
}

/// Sends the same requests in all ways, in turns. Prints a table, and returns the figures of each way.
pub(super) async fn compare<const N: usize>(what: &str, ways: [Way; N]) -> Result<[Measured; N]> {
    for way in &ways {
        way.until_it_serves().await?;
        // Opens connections and fills caches.
        way.send().await?;
    }
    let mut rounds = [(); N].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            rounds.push(way.round().await?);
        }
    }
    println!("{what}, {CONNECTIONS} connections at once, medians of {ROUNDS} rounds of {REQUESTS} requests:");
    let mut rounds = rounds.into_iter();
    Ok(ways.map(|way| Measured::of(&way, &rounds.next().unwrap_or_default())))
}

impl Measured {
    /// Prints the medians of all rounds.
    fn of(way: &Way, rounds: &[Vec<f64>]) -> Self {
        let processes = way.processes.iter().map(|(process, _)| format!("CPU of {process}"));
        let names: Vec<_> = ["p50", "p95"].map(str::to_owned).into_iter().chain(processes).collect();
        let middle = |at: usize| median(&mut rounds.iter().map(|round| round[at]).collect::<Vec<_>>());
        let figures: Vec<_> = (0..names.len()).map(middle).collect();
        let text = names.iter().zip(&figures).map(|(name, figure)| format!("{name} {figure:5.0} us"));
        println!("  {:31} {}", way.name, text.collect::<Vec<_>>().join(", "));
        Self { names, figures }
    }
}

/// Prints the figures of one way divided by those of another, except where that has none.
pub(super) fn print_ratio(name: &str, one: &Measured, other: &Measured) {
    let figures = one.names.iter().zip(one.figures.iter().zip(&other.figures));
    let figures = figures.filter(|(_, (_, other))| **other > 0.0);
    let text = figures.map(|(name, (one, other))| format!("{name} {:.2}x", one / other));
    println!("  {name:31} {}", text.collect::<Vec<_>>().join(", "));
}
