//! Faults: certificates are replaced while customers buy, by good ones and by one that has expired; and so is the key that signs
//! access tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use roster::{ORDER, PRODUCT, ROLES, Role, USER};
use serde_json::Value;
use stack::client::Client;
use stack::pki::{Authority, Validity};
use stack::supervisor::Command::{Start, Stop};
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use super::cluster::replicas;
use super::fault::{Expect, Fault, SERVES_WITHIN_FIVE, Site};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "certificates-replaced",
        "the certificates of all roles and of the edge are replaced, and one replica of two roles restarts",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let valid = Validity::of(time::Duration::days(60));
                for party in ROLES.map(|role| role.name).into_iter().chain(["edge"]) {
                    issue(&site, party, valid)?;
                }
                for role in ROLES {
                    uses(&site, role, valid).await?;
                }
                // New connections, with the new certificates on both sides.
                for replica in [replicas(PRODUCT)[0], replicas(ORDER)[0]] {
                    site.cluster.send(replica, Stop).await?;
                    site.cluster.send(replica, Start).await?;
                    site.cluster.edge_serves().await?;
                }
                Ok(())
            })
        },
    )
    .short(),
    Fault::new(
        "certificate-bad",
        "the certificate of the order service is replaced by one that has expired, which it does not use, for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                issue(&site, ORDER.name, Validity::over())?;
                site.cluster.shows(ORDER, "souk_certificate_refused_total{role=\"order\"}", |count| count > 0).await?;
                site.lasts(10).await;
                let valid = Validity::of(time::Duration::days(50));
                issue(&site, ORDER.name, valid)?;
                uses(&site, ORDER, valid).await
            })
        },
    ),
    Fault::new(
        "certificate-expired",
        "the certificate that the order service uses expires and is replaced 10 s later; meanwhile a replica of the user service \
         restarts, which the order service cannot connect to",
        SERVES_WITHIN_FIVE,
        |site| {
            Box::pin(async move {
                let soon = Validity::of(time::Duration::seconds(20));
                issue(&site, ORDER.name, soon)?;
                uses(&site, ORDER, soon).await?;
                let left = soon.until - OffsetDateTime::now_utc() + time::Duration::seconds(1);
                sleep(left.try_into().unwrap_or_default()).await;
                let user = replicas(USER)[0];
                site.cluster.send(user, Stop).await?;
                site.cluster.send(user, Start).await?;
                // Where the order service polls the revoked sessions.
                let refused = "souk_handshakes_failed_total{role=\"user\"}";
                site.cluster.replica_shows((USER, 1), refused, |count| count > 0).await?;
                site.lasts(10).await;
                let valid = Validity::of(time::Duration::days(40));
                issue(&site, ORDER.name, valid)?;
                uses(&site, ORDER, valid).await
            })
        },
    ),
    Fault::new(
        "signing-key-replaced",
        "a second key of access tokens is added; once it signs, the first is removed",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let folder = site.cluster.layout.home.join("keys/access");
                let replaced = signing_key(&site).await?;
                let before = files(&folder)?;
                write_key(&folder)?;
                let begun = Instant::now();
                while signing_key(&site).await? == replaced {
                    ensure!(begun.elapsed() < SIGNS_WITHIN, "{replaced} still signs");
                    sleep(Duration::from_secs(1)).await;
                }
                before.iter().try_for_each(std::fs::remove_file)?;
                // Tokens of the first key are still valid.
                site.lasts(30).await;
                Ok(())
            })
        },
    ),
];

/// After the lead of a new key, which is [`SIGNING_KEY_LEAD`]; the rest is for a slow machine.
const SIGNS_WITHIN: Duration = Duration::from_secs(180);
/// The edge fetches keys within a minute.
pub(crate) const SIGNING_KEY_LEAD: &str = "75s";

/// The id of the key of a new access token. It is of a new customer, as each user has only so many sessions.
async fn signing_key(site: &Site<'_>) -> Result<String> {
    let customer = Client::customer(site.cluster.layout.ports.edge()).await?;
    let token = customer.token().await?;
    let (header, _) = token.split_once('.').context("a token has a header")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    Ok(header["kid"].as_str().context("it names its key")?.to_owned())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn write_key(folder: &Path) -> Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
    // A reader sees no half of it.
    let new = folder.join(".new");
    std::fs::write(&new, key)?;
    Ok(std::fs::rename(new, folder.join(format!("{}.pem", Uuid::now_v7())))?)
}

fn issue(site: &Site<'_>, party: &str, valid: Validity) -> Result<()> {
    Authority::open(&site.cluster.layout.pki)?.issue(party, valid)
}

/// Waits until both replicas use this certificate.
async fn uses(site: &Site<'_>, role: Role, valid: Validity) -> Result<()> {
    let (metric, until) = (format!("souk_certificate_expires{{role=\"{}\"}}", role.name), valid.until.unix_timestamp());
    site.cluster.shows(role, &metric, |expires| expires == until).await
}
