//! Processes of ours die, stand still or leave.

use std::time::Duration;

use anyhow::{Result, bail};
use roster::{INVENTORY, ORDER, PAYMENT, ROLES, Role};
use tokio::time::sleep;

use super::cluster::replicas;
use super::fault::{Expect, Fault, Injected, ONE_SECOND, Site, TWELVE_SECONDS};
use super::proxy::{CREATE_ORDER, INVENTORY_TAKES_IN, Moment, ORDER_TAKES_IN, PAYMENT_TAKES_IN};
use stack::supervisor::Command::{Kill, Pause, Resume, Start, Stop};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "service-killed-after-commit",
        "kill -9 of an order service when an order is committed, before the customer is told",
        ONE_SECOND,
        |mut site| {
            Box::pin(async move {
                for _ in 0..3 {
                    let replica = site.one_of(ORDER);
                    site.kill_at(replica, Moment::Commit(CREATE_ORDER)).await?;
                }
                Ok(())
            })
        },
    )
    .short(),
    Fault::new(
        "consumer-killed-after-commit",
        "kill -9 of a service when the effect of events is committed, before Kafka is told how far was read",
        ONE_SECOND,
        |mut site| {
            Box::pin(async move {
                for (role, text) in
                    [(INVENTORY, INVENTORY_TAKES_IN), (PAYMENT, PAYMENT_TAKES_IN), (ORDER, ORDER_TAKES_IN)]
                {
                    let replica = site.one_of(role);
                    site.kill_at(replica, Moment::Commit(text)).await?;
                }
                Ok(())
            })
        },
    ),
    Fault::new(
        "relay-killed-before-produce",
        "kill -9 of a relay that has read committed events, and sent none of them",
        ONE_SECOND,
        |site| kill_leaders(site, Moment::RelayRead),
    ),
    Fault::new(
        "relay-killed-before-acknowledgement",
        "kill -9 of a relay between Kafka's write and its acknowledgement",
        ONE_SECOND,
        |site| {
            Box::pin(async move {
                for role in [ORDER, INVENTORY, PAYMENT] {
                    kill_unacknowledged(&site, role).await?;
                }
                Ok(())
            })
        },
    ),
    Fault::new(
        "relay-killed-before-delete",
        "kill -9 of a relay between Kafka's acknowledgement and the delete",
        ONE_SECOND,
        |site| kill_leaders(site, Moment::RelayDelete),
    )
    .short(),
    Fault::new("replicas-killed", "kill -9 of one replica of each role, one after another", ONE_SECOND, |mut site| {
        Box::pin(async move {
            for role in ROLES {
                let replica = site.one_of(role);
                site.cluster.send(replica, Kill).await?;
                site.apart().await;
            }
            Ok(())
        })
    })
    .short(),
    Fault::new("replica-frozen", "SIGSTOP of one replica of the order service for 30 s", TWELVE_SECONDS, |mut site| {
        Box::pin(async move {
            let replica = site.one_of(ORDER);
            site.freeze(replica, 30).await
        })
    }),
    Fault::new(
        "relay-leader-frozen",
        "SIGSTOP of the replica that publishes the orders' events, for 30 s",
        TWELVE_SECONDS,
        |site| {
            Box::pin(async move {
                let leader = site.cluster.leader(ORDER).await?;
                site.freeze(leader, 30).await
            })
        },
    )
    .short(),
    Fault::new("rolling-restart", "SIGTERM and start of every replica, one after another", Expect::NoFailure, |site| {
        Box::pin(async move {
            for role in ROLES {
                for replica in replicas(role) {
                    site.cluster.send(replica, Stop).await?;
                    site.cluster.send(replica, Start).await?;
                    site.cluster.edge_serves().await?;
                }
            }
            Ok(())
        })
    }),
];

/// The replica that publishes the outbox, of each service that has one.
fn kill_leaders(site: Site<'_>, moment: Moment) -> Injected<'_> {
    Box::pin(async move {
        for role in [ORDER, INVENTORY, PAYMENT] {
            site.kill_at(site.cluster.leader(role).await?, moment).await?;
        }
        Ok(())
    })
}

/// What the relay has sent waits in the broker's socket, and is written when its sender is gone. Some services have
/// something to tell only when they hear of something, which may not be so when the broker stands still; it goes on then.
async fn kill_unacknowledged(site: &Site<'_>, role: Role) -> Result<()> {
    for _ in 0..20 {
        let leader = site.cluster.leader(role).await?;
        site.cluster.send("kafka", Pause).await?;
        let sent = site.cluster.sends_in_vain(role).await;
        let killed = if let Ok(true) = sent { site.cluster.send(leader, Kill).await } else { Ok(()) };
        site.cluster.send("kafka", Resume).await?;
        killed?;
        if sent? {
            site.apart().await;
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
    bail!("the relay of {} never had anything to send", role.name)
}
