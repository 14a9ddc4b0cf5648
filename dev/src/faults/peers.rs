//! Answers that vanish, and a catalogue that is slow or away.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{INVENTORY, ORDER, PAYMENT, USER};
use super::fault::{Fault, ONE_SECOND, SERVES_WITHIN_FIVE};
use super::load;
use super::proxy::{Mode, Moment};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "commit-unanswered",
        what: "the answer of a COMMIT vanishes, three times for each replica of each service",
        expect: ONE_SECOND,
        is_short: true,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for role in [USER, ORDER, INVENTORY, PAYMENT] {
                    let edge = site.cluster.client();
                    let moments = async {
                        for replica in role.replicas.repeat(3) {
                            site.hold(site.cluster.database(replica)?, Moment::Commit).await.map(drop)?;
                        }
                        anyhow::Ok(())
                    };
                    // Nobody else registers meanwhile.
                    tokio::select! {
                        come = moments => come?,
                        error = load::register_for_ever(&edge), if std::ptr::eq(role, USER) => return Err(error),
                    }
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "quote-unanswered",
        what: "the answer of a call between services vanishes",
        expect: ONE_SECOND,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                for _ in 0..5 {
                    site.hold(&site.cluster.product, Moment::Answer("")).await.map(drop)?;
                    sleep(Duration::from_millis(500)).await;
                }
                Ok(())
            })
        },
    },
    Fault {
        name: "catalogue-slow",
        what: "200 ms more for each chunk from and to the catalogue",
        expect: SERVES_WITHIN_FIVE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                site.cluster.product.set(Mode::Slow(Duration::from_millis(200)));
                site.lasts(15).await;
                site.cluster.product.set(Mode::Pass);
                Ok(())
            })
        },
    },
    Fault {
        name: "catalogue-cut",
        what: "the order service cannot reach the catalogue for 10 s",
        expect: SERVES_WITHIN_FIVE,
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
