//! Faults: the broker is killed or frozen, events are duplicated, and offsets are reset.

use anyhow::Result;
use roster::{INVENTORY, ORDER, PAYMENT};
use tokio_util::sync::CancellationToken;

use super::cluster::replicas;
use super::fault::{Expect, Fault, SERVES_WITHIN_FIVE};
use crate::topics;
use stack::supervisor::Command::{End, Start, Stop};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("kafka-killed", "kill -9 of the broker, away for 30 s", Expect::NoFailure, |site| {
        Box::pin(async move {
            site.cluster.send("kafka", End).await?;
            site.lasts(30).await;
            site.cluster.send("kafka", Start).await
        })
    })
    .short(),
    Fault::new("kafka-frozen", "SIGSTOP of the broker for 60 s", Expect::NoFailure, |site| {
        Box::pin(async move { site.freeze("kafka", 60).await })
    }),
    Fault::new(
        "events-three-times",
        "each event of each topic is written twice more, for 20 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let stop = CancellationToken::new();
                let repeating = topics::repeat_events(site.cluster.layout(), stop.clone());
                let lasting = async {
                    site.lasts(20).await;
                    stop.cancel();
                };
                let (repeated, ()) = tokio::join!(repeating, lasting);
                repeated
            })
        },
    ),
    Fault::new(
        "groups-reset",
        "the offsets of each service in turn are reset: its consumers read all topics from the beginning",
        SERVES_WITHIN_FIVE,
        |site| {
            Box::pin(async move {
                for role in [INVENTORY, PAYMENT, ORDER] {
                    // A group can be deleted only while it has no members.
                    for replica in replicas(role) {
                        site.cluster.send(replica, Stop).await?;
                    }
                    let deleted = topics::delete_groups(site.cluster.layout(), &[role.name]).await;
                    let mut started = Result::Ok(());
                    for replica in replicas(role) {
                        started = started.and(site.cluster.send(replica, Start).await);
                    }
                    deleted.and(started)?;
                }
                Ok(())
            })
        },
    ),
];
