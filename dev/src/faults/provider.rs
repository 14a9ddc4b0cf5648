//! The payment provider dies, stands still, is slow, fails, and answers late, twice or never. No customer waits for it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::fault::{A_MINUTE, Expect, Fault, Injected, Site};
use super::proxy::{Mode, Moment};
use crate::supervisor::Order::{End, Start};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "confirm-unanswered",
        "the provider's answer to a confirmation vanishes, three times",
        Expect::NoFailure,
        |site| lose_answers(site, "/confirm "),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "capture-unanswered",
        "the provider's answer to a capture vanishes, three times",
        Expect::NoFailure,
        |site| lose_answers(site, "/capture "),
    )
    .settles_within(A_MINUTE)
    .short(),
    Fault::new(
        "refund-unanswered",
        "the provider's answer to a refund vanishes, three times",
        Expect::NoFailure,
        |site| lose_answers(site, "POST /v1/refunds"),
    )
    .settles_within(A_MINUTE),
    Fault::new("provider-killed", "kill -9 of the provider, away for 10 s", Expect::NoFailure, |site| {
        Box::pin(async move {
            site.cluster.order("provider", End).await?;
            site.lasts(10).await;
            site.cluster.order("provider", Start).await
        })
    })
    .settles_within(A_MINUTE),
    Fault::new("provider-frozen", "SIGSTOP of the provider for 20 s", Expect::NoFailure, |site| {
        Box::pin(async move { site.freeze("provider", 20).await })
    })
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-slow",
        "a second more for each request to the provider, and for each answer, for 10 s",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Slow(Duration::from_secs(1))),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-late",
        "requests arrive at the provider, and its answers come, after we gave them up, for 10 s",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Slow(Duration::from_secs(6))),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-failing",
        "HTTP 500 to each request for 10 s, of which the provider itself never heard",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Fail),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-twice",
        "each answer of the provider comes twice for 10 s: the second one to whoever uses the connection next",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Twice),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-limits",
        "the provider serves 5 calls a second for 15 s, and answers 429 to all others",
        Expect::NoFailure,
        |site| Box::pin(limit(site)),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "webhooks-late-and-twice",
        "the provider's webhooks come twice, 2 s late, the last one first, for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                site.cluster.set_webhooks(&[("delay_ms", "2000"), ("times", "2"), ("order", "backwards")]).await?;
                site.lasts(10).await;
                site.cluster.set_webhooks(&[]).await
            })
        },
    )
    .settles_within(A_MINUTE),
];

/// The first that are refused are under way when the limit comes. From then on each pause ends with a few at half the pace of
/// those before; without a budget there would be as many as customers buy, again and again.
const MOST_REFUSED: u64 = 150;

async fn limit(site: Site<'_>) -> Result<()> {
    site.cluster.set_limits(&[("per_second", "5"), ("reason", "global-rate")]).await?;
    site.lasts(15).await;
    let refused = site.cluster.refused_calls().await?;
    ensure!((1..=MOST_REFUSED).contains(&refused), "{refused} calls were refused; at most {MOST_REFUSED} are expected");
    Ok(())
}

fn lose_answers<'a>(site: Site<'a>, text: &'static str) -> Injected<'a> {
    Box::pin(async move {
        for _ in 0..3 {
            site.hold(&site.cluster.provider, Moment::Answer(text)).await.map(drop)?;
        }
        Ok(())
    })
}

fn misbehave(site: Site<'_>, mode: Mode) -> Injected<'_> {
    Box::pin(async move {
        site.misbehave(&site.cluster.provider, mode, 10).await;
        Ok(())
    })
}
