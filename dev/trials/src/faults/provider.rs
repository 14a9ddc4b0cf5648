//! The payment provider dies, stands still, is slow, fails, and answers late, twice or never. No customer waits for it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use sqlx::Connection;

use super::cluster::Cluster;
use super::fault::{A_MINUTE, Expect, Fault, Injected, Site};
use super::proxy::{Mode, Moment};
use stack::supervisor::Command::{End, Start};

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
            site.cluster.send("provider", End).await?;
            site.lasts(10).await;
            site.cluster.send("provider", Start).await
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
        "HTTP 500 to each request for 10 s, which the provider itself never gets",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Fail),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-twice",
        "each answer of the provider comes twice for 10 s: the second one to the next user of the connection",
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
    Fault::new("refunds-come-back", "some refunds that were done fail at the bank", Expect::NoFailure, |site| {
        Box::pin(fail_refunds(site))
    })
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

async fn fail_refunds(site: Site<'_>) -> Result<()> {
    let mut failed = Vec::new();
    for _ in 0..20 {
        for reference in site.cluster.done_refunds(2).await? {
            if site.cluster.fail_refund(&reference).await? {
                failed.push(reference);
            }
        }
        if failed.len() >= 6 {
            break;
        }
        site.lasts(1).await;
    }
    ensure!(!failed.is_empty(), "nothing was given back meanwhile");
    site.cluster.hears_of_failed(&failed).await
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

/// What faults ask of the simulator, and of our books about it.
impl Cluster {
    /// How the provider's webhooks come from now on.
    pub(super) async fn set_webhooks(&self, manner: &[(&str, &str)]) -> Result<()> {
        let answer = reqwest::Client::new().post(self.provider_page("_webhooks")).form(manner).send().await?;
        Ok(answer.error_for_status().map(drop)?)
    }

    /// How many calls the provider serves from now on.
    pub(super) async fn set_limits(&self, limits: &[(&str, &str)]) -> Result<()> {
        let answer = reqwest::Client::new().post(self.provider_page("_limits")).form(limits).send().await?;
        Ok(answer.error_for_status().map(drop)?)
    }

    /// How many calls the provider refused for its limits since they were set.
    async fn refused_calls(&self) -> Result<u64> {
        let page = reqwest::get(self.provider_page("_limits")).await?.text().await?;
        let page: serde_json::Value = serde_json::from_str(&page)?;
        page["refused"].as_u64().context("the provider counts what it refuses")
    }

    /// The newest refunds that went back by our books, by the provider's names.
    async fn done_refunds(&self, count: i64) -> Result<Vec<String>> {
        let mut session = self.administrator("souk_payment").await?;
        let names = "select reference from refund where state = 'DONE' order by updated_at desc limit $1";
        let names = sqlx::query_scalar(names).bind(count).fetch_all(&mut session).await?;
        session.close().await?;
        Ok(names)
    }

    /// Lets a refund fail at the bank. Whether that was still possible.
    async fn fail_refund(&self, reference: &str) -> Result<bool> {
        let url = self.provider_page(&format!("_refunds/{reference}"));
        let form = [("status", "failed"), ("failure_reason", "unknown")];
        Ok(reqwest::Client::new().post(url).form(&form).send().await?.status().is_success())
    }

    /// Waits until our books know that these refunds failed. What no webhook tells is found by the daily comparison, which is
    /// due at once here.
    async fn hears_of_failed(&self, references: &[String]) -> Result<()> {
        let mut session = self.administrator("souk_payment").await?;
        for _ in 0..180 {
            let open = "update payment set check_at = now() where check_at > now() and payment_id in
                          (select payment_id from refund where reference = any($1) and state = 'DONE')";
            sqlx::query(open).bind(references).execute(&mut session).await?;
            let open = "select count(*) from refund where reference = any($1) and state = 'DONE'";
            if sqlx::query_scalar::<_, i64>(open).bind(references).fetch_one(&mut session).await? == 0 {
                return Ok(session.close().await?);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bail!("our books still say that a refund was done which failed three minutes ago");
    }
}
