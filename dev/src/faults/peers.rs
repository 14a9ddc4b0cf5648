//! Answers that vanish, and a catalogue that is slow or away.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{INVENTORY, ORDER, PAYMENT, USER};
use super::fault::{Expect, Fault, HALF_A_MINUTE, ONE_SECOND, SERVES_WITHIN_FIVE};
use super::load;
use super::proxy::{CREATE_ORDER, Mode, Moment};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "commit-unanswered",
        what: "the answer of a COMMIT vanishes, twice for each replica of each service",
        expect: ONE_SECOND,
        settles: HALF_A_MINUTE,
        is_short: true,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in [USER, ORDER, INVENTORY, PAYMENT] {
                    let edge = site.cluster.client();
                    // Of the order service, the one that a customer waits for.
                    let text = if std::ptr::eq(role, ORDER) { CREATE_ORDER } else { "" };
                    let moments = async {
                        for replica in role.replicas.repeat(2) {
                            site.hold(site.cluster.database(replica)?, Moment::Commit(text)).await.map(drop)?;
                            // Each for itself, not all as one stretch.
                            sleep(Duration::from_millis(1_500)).await;
                        }
                        anyhow::Ok(())
                    };
                    // Nobody else registers meanwhile.
                    tokio::select! {
                        come = moments => come?,
                        error = load::register_for_ever(site.journal, &edge), if std::ptr::eq(role, USER) => return Err(error),
                    }
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "quote-unanswered",
        what: "the catalogue's answer to a quote vanishes, five times",
        expect: Expect::NoFailure,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for _ in 0..5 {
                    // Its request has an id in it, which is a UUID of version 7; pings and settings have none.
                    site.hold(&site.cluster.product, Moment::Answer("-7")).await.map(drop)?;
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "catalogue-slow",
        what: "200 ms more for each chunk from and to the catalogue",
        expect: Expect::NoFailure,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                site.cluster.product.set(Mode::Slow(Duration::from_millis(200)));
                site.lasts(10).await;
                site.cluster.product.set(Mode::Pass);
                Ok(())
            })
        },
    },
    Fault {
        name: "catalogue-cut",
        what: "the order service cannot reach the catalogue for 10 s",
        expect: SERVES_WITHIN_FIVE,
        settles: HALF_A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                site.cluster.product.set(Mode::Cut);
                site.lasts(10).await;
                site.cluster.product.set(Mode::Pass);
                Ok(())
            })
        },
    },
];
