//! Answers that vanish, and a catalogue that is slow or away.

use std::time::Duration;

use roster::{INVENTORY, ORDER, PAYMENT, USER};
use tokio::time::sleep;

use super::cluster::replicas;
use super::fault::{Expect, Fault, ONE_SECOND, SERVES_WITHIN_FIVE};
use super::load;
use super::proxy::{CREATE_ORDER, Mode, Moment};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "commit-unanswered",
        "the answer of a COMMIT vanishes, twice for each replica of each service",
        ONE_SECOND,
        |site| {
            Box::pin(async move {
                for role in [USER, ORDER, INVENTORY, PAYMENT] {
                    let edge = site.cluster.client();
                    // Of the order service, the one that a customer waits for.
                    let text = if role == ORDER { CREATE_ORDER } else { "" };
                    let moments = async {
                        for replica in replicas(role).repeat(2) {
                            site.hold(site.cluster.database(replica)?, Moment::Commit(text)).await.map(drop)?;
                            site.apart().await;
                        }
                        anyhow::Ok(())
                    };
                    // Nobody else registers meanwhile.
                    tokio::select! {
                        come = moments => come?,
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
        "the catalogue's answer to a quote vanishes, five times",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                for _ in 0..5 {
                    // Its request has an id in it, which is a UUID of version 7; pings and settings have none.
                    site.hold(&site.cluster.product, Moment::Answer("-7")).await.map(drop)?;
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(())
            })
        },
    ),
    Fault::new("catalogue-slow", "200 ms more for each chunk from and to the catalogue", Expect::NoFailure, |site| {
        Box::pin(async move {
            site.misbehave(&site.cluster.product, Mode::Slow(Duration::from_millis(200)), 10).await;
            Ok(())
        })
    }),
    Fault::new("catalogue-cut", "the order service cannot reach the catalogue for 10 s", SERVES_WITHIN_FIVE, |site| {
        Box::pin(async move {
            site.misbehave(&site.cluster.product, Mode::Cut, 10).await;
            Ok(())
        })
    }),
];
