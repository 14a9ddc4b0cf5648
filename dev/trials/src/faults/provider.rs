//! Faults: the payment provider is killed, frozen, slow or failing, and responds late, twice or never. No customer waits for it.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use sqlx::Connection;

use super::cluster::Cluster;
use super::fault::{A_MINUTE, Expect, Fault, Injected, Site};
use super::moment::Moment;
use super::proxy::Mode;
use stack::supervisor::Command::{End, Start};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "confirm-unanswered",
        "the provider's response to a confirmation is lost, three times",
        Expect::NoFailure,
        |site| lose_responses(site, "/confirm "),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "capture-unanswered",
        "the provider's response to a capture is lost, three times",
        Expect::NoFailure,
        |site| lose_responses(site, "/capture "),
    )
    .settles_within(A_MINUTE)
    .short(),
    Fault::new(
        "refund-unanswered",
        "the provider's response to a refund is lost, three times",
        Expect::NoFailure,
        |site| lose_responses(site, "POST /v1/refunds"),
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
        "a second of latency for each request to the provider and each response, for 10 s",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Slow(Duration::from_secs(1))),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-late",
        "requests and responses of the provider arrive after our timeout, for 10 s",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Slow(Duration::from_secs(6))),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-failing",
        "HTTP 500 to each request, without an effect, for 10 s",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Fail),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-twice",
        "each response of the provider comes twice for 10 s, the second one to the next call on the connection",
        Expect::NoFailure,
        |site| misbehave(site, Mode::Twice),
    )
    .settles_within(A_MINUTE),
    Fault::new(
        "provider-limits",
        "the provider serves 5 calls per second for 15 s, and responds 429 to all others",
        Expect::NoFailure,
        |site| Box::pin(limit(site)),
    )
    .settles_within(A_MINUTE),
    Fault::new("refunds-come-back", "some completed refunds fail at the bank", Expect::NoFailure, |site| {
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

/// The first refused calls were sent before the limit was known. From then on, a few calls at half the pace follow each pause;
/// without a budget, all calls for new purchases would be refused again and again.
const MAX_REFUSED: u64 = 150;

async fn limit(site: Site<'_>) -> Result<()> {
    site.cluster.set_limits(&[("per_second", "5"), ("reason", "global-rate")]).await?;
    site.lasts(15).await;
    let refused = site.cluster.refused_calls().await?;
    // On a slow machine, all calls may be within the limit.
    let least = u64::from(site.rate > 4.0);
    ensure!(
        (least..=MAX_REFUSED).contains(&refused),
        "{refused} calls were refused; at most {MAX_REFUSED} are expected"
    );
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
    ensure!(!failed.is_empty(), "no refund was completed meanwhile");
    site.cluster.await_failed_refunds(&failed).await
}

fn lose_responses<'a>(site: Site<'a>, text: &'static str) -> Injected<'a> {
    Box::pin(async move {
        for _ in 0..3 {
            site.hold(&site.cluster.provider, Moment::Response(text)).await.map(drop)?;
        }
        Ok(())
    })
}

fn misbehave(site: Site<'_>, mode: Mode) -> Injected<'_> {
    Box::pin(async move {
        site.misbehave(from_ref(&site.cluster.provider), mode, 10).await;
        Ok(())
    })
}

/// The simulator's own pages, and our refunds.
impl Cluster {
    /// Sets how the provider delivers webhooks.
    pub(super) async fn set_webhooks(&self, delivery: &[(&str, &str)]) -> Result<()> {
        let response = reqwest::Client::new().post(self.provider_page("_webhooks")).form(delivery).send().await?;
        Ok(response.error_for_status().map(drop)?)
    }

    /// Sets the provider's rate limit.
    pub(super) async fn set_limits(&self, limits: &[(&str, &str)]) -> Result<()> {
        let response = reqwest::Client::new().post(self.provider_page("_limits")).form(limits).send().await?;
        Ok(response.error_for_status().map(drop)?)
    }

    /// How many calls the provider refused since its limit was set.
    async fn refused_calls(&self) -> Result<u64> {
        let page = reqwest::get(self.provider_page("_limits")).await?.text().await?;
        let page: serde_json::Value = serde_json::from_str(&page)?;
        page["refused"].as_u64().context("the provider counts what it refuses")
    }

    /// The provider's ids of the newest completed refunds.
    async fn done_refunds(&self, count: i64) -> Result<Vec<String>> {
        let mut session = self.administrator("souk_payment").await?;
        let names = "select reference from refund where state = 'DONE' order by updated_at desc limit $1";
        let names = sqlx::query_scalar(names).bind(count).fetch_all(&mut session).await?;
        session.close().await?;
        Ok(names)
    }

    /// Makes a refund fail at the bank. Returns whether that was possible.
    async fn fail_refund(&self, reference: &str) -> Result<bool> {
        let url = self.provider_page(&format!("_refunds/{reference}"));
        let form = [("status", "failed"), ("failure_reason", "unknown")];
        Ok(reqwest::Client::new().post(url).form(&form).send().await?.status().is_success())
    }

    /// Waits until the payment service knows that these refunds failed. If no webhook reports it, the daily comparison finds it,
    /// which is made due at once here.
    async fn await_failed_refunds(&self, references: &[String]) -> Result<()> {
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
        bail!("the payment service does not know of a refund that failed three minutes ago");
    }
}
