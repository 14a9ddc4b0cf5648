//! Processes of ours die, stand still or leave.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{INVENTORY, ORDER, PAYMENT, ROLES};
use super::fault::{Expect, Fault, ONE_SECOND, SERVES_WITHIN_FIVE};
use super::proxy::Moment;
use crate::supervisor::Order::{Kill, Pause, Resume, Start, Stop};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "service-killed-after-commit",
        what: "kill -9 when Postgres has committed, before anybody is told: who called, or Kafka how far was read",
        expect: ONE_SECOND,
        is_short: true,
        is_calm: false,
        inject: |mut site| {
            Box::pin(async move {
                for role in [ORDER, INVENTORY, PAYMENT, ORDER] {
                    let replica = site.one_of(role);
                    site.kill_at(replica, Moment::Commit).await?;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "relay-killed-before-produce",
        what: "kill -9 of a relay that has read committed events, and sent none of them",
        expect: ONE_SECOND,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in [ORDER, INVENTORY, PAYMENT] {
                    site.kill_at(site.cluster.leader(role).await?, Moment::RelayRead).await?;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "relay-killed-before-acknowledgement",
        what: "kill -9 of a relay between Kafka's write and its acknowledgement",
        expect: ONE_SECOND,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in [ORDER, INVENTORY, PAYMENT] {
                    let leader = site.cluster.leader(role).await?;
                    // What was sent waits in the broker's socket, and is written when nobody waits for it any more.
                    site.cluster.order("kafka", Pause).await?;
                    let sent = site.cluster.wait_for_unacknowledged(role).await;
                    let killed = site.cluster.order(leader, Kill).await;
                    site.cluster.order("kafka", Resume).await?;
                    sent.and(killed)?;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "relay-killed-before-delete",
        what: "kill -9 of a relay between Kafka's acknowledgement and the delete",
        expect: ONE_SECOND,
        is_short: true,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in [ORDER, INVENTORY, PAYMENT] {
                    site.kill_at(site.cluster.leader(role).await?, Moment::RelayDelete).await?;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "replicas-killed",
        what: "kill -9 of one replica of each role, one after another",
        expect: ONE_SECOND,
        is_short: true,
        is_calm: false,
        inject: |mut site| {
            Box::pin(async move {
                for role in &ROLES {
                    let replica = site.one_of(role);
                    site.cluster.order(replica, Kill).await?;
                    site.lasts(5).await;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "replica-frozen",
        what: "SIGSTOP of one replica of the order service for 30 s",
        expect: SERVES_WITHIN_FIVE,
        is_short: false,
        is_calm: false,
        inject: |mut site| {
            Box::pin(async move {
                let replica = site.one_of(ORDER);
                site.freeze(replica, 30).await
            })
        },
    },
    Fault {
        name: "relay-leader-frozen",
        what: "SIGSTOP of the replica that publishes the orders' events, for 30 s",
        expect: SERVES_WITHIN_FIVE,
        is_short: true,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                let leader = site.cluster.leader(ORDER).await?;
                site.freeze(leader, 30).await
            })
        },
    },
    Fault {
        name: "rolling-restart",
        what: "SIGTERM and start of every replica, one after another",
        expect: Expect::NoFailure,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in &ROLES {
                    for replica in role.replicas {
                        site.cluster.order(replica, Stop).await?;
                        site.cluster.order(replica, Start).await?;
                        // The edge finds it again within a health check.
                        sleep(Duration::from_secs(3)).await;
                    }
                }
                Ok(())
            })
        },
    },
];
