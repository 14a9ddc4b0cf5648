//! The cost of reads: lists of 20 products and single products, over one connection and over eight, through the edge (REST and
//! gRPC) and directly at the role, in turns. It shows responses that are delayed instead of processed, as by Nagle's algorithm
//! with delayed acknowledgements: their times are far above those of the other ways.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use contracts::souk::product::v1::product_service_client::ProductServiceClient;
use contracts::souk::product::v1::{GetProductRequest, ListProductsRequest};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::layers::{connect, plain};
use super::{percentile, with_stack};
use crate::roles;
use stack::client::Client;
use stack::controlled::Stack;

const PAGE: usize = 20;
/// The role that is read.
const ROLE: roster::Role = roster::PRODUCT;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);

pub async fn run() -> Result<()> {
    with_stack(measure).await
}

/// Measures a running stack.
pub(super) async fn measure(stack: &Stack) -> Result<()> {
    let operator = stack.operator().await?;
    let mut product = String::new();
    for number in 0..PAGE {
        let title = "A thing with a title that is about as long as titles are";
        product = operator.stock(&format!("READ-{number:02}"), title, ("EUR", 1_250), 0).await?;
    }
    println!("load average before reads: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    for read in [Read::List, Read::Get(product)] {
        for connections in [1, 8] {
            compare(stack, &read, connections).await?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Read {
    List,
    Get(String),
}

/// One connection.
enum Reader {
    Rest(Client),
    Grpc(ProductServiceClient<Channel>),
}

impl Reader {
    async fn read(&mut self, what: &Read) -> Result<()> {
        let count = match (self, what) {
            (Self::Rest(client), Read::List) => {
                let page = client.get(&format!("/v1/products?pageSize={PAGE}")).await?.ok()?;
                page["products"].as_array().map_or(0, Vec::len)
            }
            (Self::Rest(client), Read::Get(id)) => {
                client.get(&format!("/v1/products/{id}")).await?.ok()?;
                PAGE
            }
            (Self::Grpc(client), Read::List) => {
                let ask = ListProductsRequest { page_size: i32::try_from(PAGE)?, ..Default::default() };
                client.list_products(ask).await?.into_inner().products.len()
            }
            (Self::Grpc(client), Read::Get(id)) => {
                client.get_product(GetProductRequest { product_id: id.clone() }).await?;
                PAGE
            }
        };
        ensure!(count == PAGE, "a page has {count} products");
        Ok(())
    }
}

async fn compare(stack: &Stack, read: &Read, connections: usize) -> Result<()> {
    let (edge, role) = (stack.ports().edge(), stack.ports().grpc(ROLE));
    let ways = ["REST through the edge", "gRPC through the edge", "gRPC at the role"];
    let mut readers = ways.map(|_| Vec::new());
    for _ in 0..connections {
        let [rest, through, straight] = &mut readers;
        rest.push(Reader::Rest(Client::new(edge).impatient()));
        through.push(Reader::Grpc(connect(&plain(([127, 0, 0, 1], edge).into())?).await?));
        straight.push(Reader::Grpc(connect(&roles::endpoint(&stack.layout.pki, "dev", role)?).await?));
    }
    // Opens connections and fills caches.
    for reader in readers.iter_mut().flatten() {
        reader.read(read).await?;
    }
    let mut times = ways.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (readers, times) in readers.iter_mut().zip(&mut times) {
            let (used, mut measured) = keep_reading(std::mem::take(readers), read).await?;
            *readers = used;
            times.append(&mut measured);
        }
    }
    let name = if matches!(read, Read::List) { "ListProducts of 20" } else { "GetProduct" };
    println!("{name}, {connections} connections at once:");
    let mut slowest = [0.0; 3];
    for ((way, times), slowest) in ways.iter().zip(&mut times).zip(&mut slowest) {
        times.sort();
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(times, share).as_secs_f64() * 1_000.0);
        let rate = times.len() as f64 / (ROUND * u32::try_from(ROUNDS)?).as_secs_f64();
        println!("  {way:22} p50 {p50:6.2} ms, p99 {p99:6.2} ms, {rate:6.0} requests/s");
        *slowest = p99;
    }
    let [rest, through, straight] = slowest;
    println!("  p99 compared with the role: REST {:.1}x, gRPC {:.1}x", rest / straight, through / straight);
    Ok(())
}

/// Each connection reads repeatedly for one round.
async fn keep_reading(readers: Vec<Reader>, read: &Read) -> Result<(Vec<Reader>, Vec<Duration>)> {
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for mut reader in readers {
        let read = read.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < ROUND {
                let started = Instant::now();
                reader.read(&read).await?;
                times.push(started.elapsed());
            }
            anyhow::Ok((reader, times))
        });
    }
    let (mut readers, mut times) = (Vec::new(), Vec::new());
    for outcome in tasks.join_all().await {
        let (reader, mut measured) = outcome?;
        readers.push(reader);
        times.append(&mut measured);
    }
    Ok((readers, times))
}
