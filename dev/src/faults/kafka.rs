//! The broker dies or stands still, events repeat themselves, and consumers begin again.

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::cluster::{INVENTORY, ORDER, PAYMENT};
use super::fault::{Expect, Fault, HALF_A_MINUTE, SERVES_WITHIN_FIVE};
use crate::supervisor::Order::{End, Start, Stop};
use crate::topics;

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "kafka-killed",
        what: "kill -9 of the broker, away for 30 s",
        expect: Expect::NoFailure,
        settles: HALF_A_MINUTE,
        is_short: true,
        is_calm: true,
        inject: |site| {
            Box::pin(async move {
                site.cluster.order("kafka", End).await?;
                site.lasts(30).await;
                site.cluster.order("kafka", Start).await
            })
        },
    },
    Fault {
        name: "kafka-frozen",
        what: "SIGSTOP of the broker for 60 s",
        expect: Expect::NoFailure,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: true,
        inject: |site| Box::pin(async move { site.freeze("kafka", 60).await }),
    },
    Fault {
        name: "events-three-times",
        what: "each event of each topic is written twice more, for 20 s",
        expect: Expect::NoFailure,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                let (brokers, stop) = (site.cluster.brokers(), CancellationToken::new());
                let repeating = topics::repeat_events(&brokers, stop.clone());
                let lasting = async {
                    site.lasts(20).await;
                    stop.cancel();
                };
                let (repeated, ()) = tokio::join!(repeating, lasting);
                repeated
            })
        },
    },
    Fault {
        name: "groups-reset",
        what: "the consumers of each service in turn begin again from the start of all topics",
        expect: SERVES_WITHIN_FIVE,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: true,
        inject: |site| {
            Box::pin(async move {
                for role in [INVENTORY, PAYMENT, ORDER] {
                    // A group is forgotten only while nobody is in it.
                    for replica in role.replicas {
                        site.cluster.order(replica, Stop).await?;
                    }
                    let forgotten = topics::forget_groups(&site.cluster.brokers(), &[role.name]).await;
                    let mut started = Result::Ok(());
                    for replica in role.replicas {
                        started = started.and(site.cluster.order(replica, Start).await);
                    }
                    forgotten.and(started)?;
                }
                Ok(())
            })
        },
    },
];
