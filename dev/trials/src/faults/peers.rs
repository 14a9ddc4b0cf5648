//! Faults: responses are lost, the product service is slow or unreachable, and so is the inventory service for it.

use std::time::Duration;

use rand::seq::IndexedRandom;
use roster::{INVENTORY, ORDER, PAYMENT, USER};
use tokio::time::sleep;

use super::cluster::replicas;
use super::fault::{Expect, Fault, ONE_SECOND, SERVES_WITHIN_FIVE, TWELVE_SECONDS};
use super::load;
use super::moment::{CREATE_ORDER, Moment};
use super::proxy::Mode;

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "commit-unanswered",
        "the response to a COMMIT is lost, twice for each replica of each service",
        ONE_SECOND,
        |site| {
            Box::pin(async move {
                for role in [USER, ORDER, INVENTORY, PAYMENT] {
                    let edge = site.cluster.client();
                    // For the order service, the commit that a customer waits for.
                    let text = if role == ORDER { CREATE_ORDER } else { "" };
                    let moments = async {
                        for replica in replicas(role).repeat(2) {
                            site.hold(site.cluster.database(replica)?, Moment::Commit(text)).await.map(drop)?;
                            site.gap().await;
                        }
                        anyhow::Ok(())
                    };
                    // Other customers do not register at this time.
                    tokio::select! {
                        occurred = moments => occurred?,
                        error = load::register_for_ever(site.journal, &edge), if role == USER => return Err(error),
                    }
                }
                Ok(())
            })
        },
    )
    .short(),
    Fault::new(
        "quote-unanswered",
        "the product service's response to a quote is lost, five times",
        Expect::NoFailure,
        |mut site| {
            Box::pin(async move {
                for _ in 0..5 {
                    let replica = site.cluster.products.choose(&mut site.random).expect("there are three");
                    // The request contains a UUID of version 7; HTTP/2 pings and settings do not.
                    site.hold(replica, Moment::Response("-7")).await.map(drop)?;
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(())
            })
        },
    ),
    Fault::new(
        "catalogue-slow",
        "200 ms of latency for each chunk from and to the product service",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                site.misbehave(&site.cluster.products, Mode::Slow(Duration::from_millis(200)), 10).await;
                Ok(())
            })
        },
    ),
    Fault::new(
        "catalogue-cut",
        "the order service cannot reach the product service for 10 s",
        SERVES_WITHIN_FIVE,
        |site| {
            Box::pin(async move {
                site.misbehave(&site.cluster.products, Mode::Cut, 10).await;
                Ok(())
            })
        },
    ),
    Fault::new(
        "stock-slow",
        "200 ms of latency for each chunk between the product service and the inventory service",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                site.misbehave(&site.cluster.stocks, Mode::Slow(Duration::from_millis(200)), 10).await;
                Ok(())
            })
        },
    ),
    Fault::new(
        "stock-cut",
        "the product service cannot reach the inventory service for 10 s",
        TWELVE_SECONDS,
        |site| {
            Box::pin(async move {
                site.misbehave(&site.cluster.stocks, Mode::Cut, 10).await;
                Ok(())
            })
        },
    ),
];
