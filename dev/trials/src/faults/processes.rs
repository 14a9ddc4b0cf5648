//! Faults: our processes are killed, frozen or restarted.

use std::time::Duration;

use anyhow::{Result, bail};
use roster::{INVENTORY, ORDER, PAYMENT, PRODUCT, ROLES, Role};
use tokio::time::sleep;

use super::cluster::replicas;
use super::fault::{A_MINUTE, Expect, Fault, Injected, ONE_SECOND, Site, TWELVE_SECONDS};
use super::moment::{CREATE_ORDER, INVENTORY_CONSUMES, Moment, ORDER_CONSUMES, PAYMENT_CONSUMES};
use stack::supervisor::Command::{Kill, Pause, Resume, Start, Stop};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "service-killed-after-commit",
        "kill -9 of an order service when an order is committed, before the response",
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
        "kill -9 of a service when the effect of events is committed, before the offset is",
        ONE_SECOND,
        |mut site| {
            Box::pin(async move {
                for (role, text) in
                    [(INVENTORY, INVENTORY_CONSUMES), (PAYMENT, PAYMENT_CONSUMES), (ORDER, ORDER_CONSUMES)]
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
        "kill -9 of a relay that has read events, before it sends them",
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
                site.gap().await;
            }
            Ok(())
        })
    })
    // One of them may have claimed notifications.
    .settles_within(A_MINUTE)
    .short(),
    Fault::new(
        "product-replica-killed",
        "kill -9 of one of three replicas of the product service, which serves only reads, three times",
        Expect::NoFailure,
        |mut site| {
            Box::pin(async move {
                for _ in 0..3 {
                    let replica = site.one_of(PRODUCT);
                    site.cluster.send(replica, Kill).await?;
                    site.cluster.edge_serves().await?;
                }
                Ok(())
            })
        },
    )
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

/// Kills the replica whose relay publishes the outbox, of each service that publishes events.
fn kill_leaders(site: Site<'_>, moment: Moment) -> Injected<'_> {
    Box::pin(async move {
        for role in [ORDER, INVENTORY, PAYMENT] {
            site.kill_at(site.cluster.leader(role).await?, moment).await?;
        }
        Ok(())
    })
}

/// While the broker is frozen, what the relay has sent waits in the broker's socket, and is written after the sender was killed.
/// Some services publish only when they have consumed something, which may not happen while the broker is frozen; then it is
/// resumed and frozen again.
async fn kill_unacknowledged(site: &Site<'_>, role: Role) -> Result<()> {
    for _ in 0..20 {
        let leader = site.cluster.leader(role).await?;
        site.cluster.send("kafka", Pause).await?;
        let sent = site.cluster.has_unacknowledged(role).await;
        let killed = if let Ok(true) = sent { site.cluster.send(leader, Kill).await } else { Ok(()) };
        site.cluster.send("kafka", Resume).await?;
        killed?;
        if sent? {
            site.gap().await;
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
    bail!("the relay of {} had no events to send", role.name)
}
