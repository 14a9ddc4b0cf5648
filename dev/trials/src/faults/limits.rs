//! Faults: what counts limits is away, or has lost its counts. Customers notice none of them: the edge counts by itself then.

use anyhow::{Result, ensure};
use roster::GATEWAY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cluster::replicas;
use super::fault::{Expect, Fault, Site};
use stack::supervisor::Command::{Kill, Pause, Resume};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("redis-killed", "kill -9 of Redis, three times", Expect::NoFailure, |site| {
        Box::pin(async move {
            for _ in 0..3 {
                site.cluster.send("redis", Kill).await?;
                site.lasts(3).await;
            }
            Ok(())
        })
    })
    .short(),
    Fault::new("redis-frozen", "SIGSTOP of Redis for 15 s", Expect::NoFailure, |site| {
        Box::pin(async move { site.freeze("redis", 15).await })
    }),
    Fault::new(
        "redis-flushed",
        "Redis loses all counts and scripts, each second for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                for _ in 0..10 {
                    flush(&site).await?;
                    site.lasts(1).await;
                }
                Ok(())
            })
        },
    ),
    Fault::new("gateway-killed", "kill -9 of both replicas of the gateway, three times", Expect::NoFailure, |site| {
        Box::pin(async move {
            for _ in 0..3 {
                for replica in replicas(GATEWAY) {
                    site.cluster.send(replica, Kill).await?;
                }
                site.lasts(3).await;
            }
            Ok(())
        })
    })
    .short(),
    Fault::new("gateway-frozen", "SIGSTOP of both replicas of the gateway for 15 s", Expect::NoFailure, |site| {
        Box::pin(async move {
            for replica in replicas(GATEWAY) {
                site.cluster.send(replica, Pause).await?;
            }
            site.lasts(15).await;
            for replica in replicas(GATEWAY) {
                site.cluster.send(replica, Resume).await?;
            }
            Ok(())
        })
    }),
];

async fn flush(site: &Site<'_>) -> Result<()> {
    let mut redis = TcpStream::connect(("127.0.0.1", site.cluster.layout.ports.redis())).await?;
    redis.write_all(b"FLUSHALL\r\nSCRIPT FLUSH\r\n").await?;
    let mut response = [0; b"+OK\r\n+OK\r\n".len()];
    redis.read_exact(&mut response).await?;
    ensure!(response == *b"+OK\r\n+OK\r\n", "Redis responds {:?}", String::from_utf8_lossy(&response));
    Ok(())
}
