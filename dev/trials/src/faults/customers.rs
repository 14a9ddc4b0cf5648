//! Faults: customers abandon requests, or all buy the same product.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::backlog::Progress;
use super::fault::{Expect, Fault, HALF_A_MINUTE, ONE_SECOND, Pace, Site};
use super::load::{self, KeyedRequest};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "calls-cancelled",
        "customers abandon half of all requests, at a random time within twice the median, for 20 s",
        ONE_SECOND,
        |site| {
            Box::pin(async move {
                site.journal.abandon_within(site.machine.usual.p50 * 2);
                site.lasts(20).await;
                site.journal.abandon_within(Duration::ZERO);
                Ok(())
            })
        },
    )
    .short(),
    Fault::new(
        "flash-sale",
        "5,000 attempts of 32 buyers, fewer on a slow machine, on 100 units of one product; exactly 100 are sold",
        Expect::NoFailure,
        |site| Box::pin(sell_out(site)),
    )
    .short(),
];

async fn sell_out(mut site: Site<'_>) -> Result<()> {
    let (attempts, buyers, units) = match site.pace {
        Pace::Full => (5_000, site.machine.crowd(32), 100),
        Pace::Short => (300, site.machine.crowd(4), 20),
    };
    let sku = format!("FLASH-{}", site.random.random::<u32>());
    let product = site.cluster.operator().await?.stock(&sku, "What all want", ("EUR", 9_900), units).await?;
    let (left, mut crowd) = (std::sync::Arc::new(AtomicU32::new(attempts)), JoinSet::new());
    for _ in 0..buyers {
        let (edge, left) = (site.cluster.client(), left.clone());
        let journal = site.journal.clone();
        let request = KeyedRequest::order(load::purchase(&product, 1, "pm_card_visa"));
        crowd.spawn(async move {
            let (email, password) =
                (format!("{}@example.com", Uuid::now_v7().simple()), stack::client::random_password());
            let session = load::sign_up(&journal, &edge, &email, &password).await?;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                load::send_until_response(&journal, &session, &request).await?;
            }
            anyhow::Ok(())
        });
    }
    for buyer in crowd.join_all().await {
        buyer?;
    }
    let mut progress = Progress::new(HALF_A_MINUTE);
    loop {
        let (available, reserved, sold) = site.cluster.stock(&sku).await?;
        ensure!(sold <= i64::from(units), "{sold} of {units} units of {sku} were sold");
        if (available, reserved, sold) == (0, 0, i64::from(units)) {
            return Ok(());
        }
        progress.check((available, reserved, sold), site.control).with_context(|| {
            format!("{sold} of {units} units of {sku} were sold, {reserved} are reserved and {available} available")
        })?;
        tokio::time::sleep(super::LOOK_AGAIN).await;
    }
}
