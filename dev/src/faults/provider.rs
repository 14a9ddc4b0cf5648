//! The payment provider dies, stands still, is slow, fails, and answers late, twice or never. No customer waits for it.

use std::time::Duration;

use anyhow::Result;

use super::fault::{A_MINUTE, Expect, Fault, Injected, Site};
use super::proxy::{Mode, Moment};
use crate::supervisor::Order::{End, Start};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "confirm-unanswered",
        what: "the provider's answer to a confirmation vanishes, three times",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| lose_answers(site, "/confirm "),
    },
    Fault {
        name: "capture-unanswered",
        what: "the provider's answer to a capture vanishes, three times",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: true,
        is_calm: false,
        inject: |site| lose_answers(site, "/capture "),
    },
    Fault {
        name: "refund-unanswered",
        what: "the provider's answer to a refund vanishes, three times",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| lose_answers(site, "POST /v1/refunds"),
    },
    Fault {
        name: "provider-killed",
        what: "kill -9 of the provider, away for 10 s",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                site.cluster.order("provider", End).await?;
                site.lasts(10).await;
                site.cluster.order("provider", Start).await
            })
        },
    },
    Fault {
        name: "provider-frozen",
        what: "SIGSTOP of the provider for 20 s",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| Box::pin(async move { site.freeze("provider", 20).await }),
    },
    Fault {
        name: "provider-slow",
        what: "a second more for each request to the provider, and for each answer, for 10 s",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| misbehave(site, Mode::Slow(Duration::from_secs(1))),
    },
    Fault {
        name: "provider-late",
        what: "requests arrive at the provider, and its answers come, after we gave them up, for 10 s",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| misbehave(site, Mode::Slow(Duration::from_secs(6))),
    },
    Fault {
        name: "provider-failing",
        what: "HTTP 500 to each request for 10 s, of which the provider itself never heard",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| misbehave(site, Mode::Fail),
    },
    Fault {
        name: "provider-twice",
        what: "each answer of the provider comes twice for 10 s: the second one to whoever uses the connection next",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| misbehave(site, Mode::Twice),
    },
    Fault {
        name: "webhooks-late-and-twice",
        what: "the provider's webhooks come twice, 2 s late, the last one first, for 10 s",
        expect: Expect::NoFailure,
        settles: A_MINUTE,
        is_short: false,
        is_calm: false,
        inject: |site| {
            Box::pin(async move {
                site.cluster.set_webhooks(&[("delay_ms", "2000"), ("times", "2"), ("order", "backwards")]).await?;
                site.lasts(10).await;
                site.cluster.set_webhooks(&[]).await
            })
        },
    },
];

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
        site.cluster.provider.set(mode);
        site.lasts(10).await;
        site.cluster.provider.set(Mode::Pass);
        Result::Ok(())
    })
}
