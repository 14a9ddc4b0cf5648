//! Faults: certificates are replaced while customers buy, by good ones and by one that has expired.

use anyhow::Result;
use roster::{ORDER, PRODUCT, ROLES, Role};
use stack::pki::{Authority, Validity};
use stack::supervisor::Command::{Start, Stop};
use time::Duration;

use super::cluster::replicas;
use super::fault::{Expect, Fault, Site};

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new(
        "certificates-replaced",
        "the certificates of all roles and of the edge are replaced, and one replica of two roles restarts",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                let valid = Validity::of(Duration::days(60));
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
        "certificate-expired",
        "the certificate of the order service is replaced by one that has expired, for 10 s",
        Expect::NoFailure,
        |site| {
            Box::pin(async move {
                issue(&site, ORDER.name, Validity::over())?;
                site.cluster.shows(ORDER, "souk_certificate_refused_total{role=\"order\"} 1").await?;
                site.lasts(10).await;
                let valid = Validity::of(Duration::days(50));
                issue(&site, ORDER.name, valid)?;
                uses(&site, ORDER, valid).await
            })
        },
    ),
];

fn issue(site: &Site<'_>, party: &str, valid: Validity) -> Result<()> {
    Authority::open(&site.cluster.layout.pki)?.issue(party, valid)
}

/// Waits until both replicas use this certificate.
async fn uses(site: &Site<'_>, role: Role, valid: Validity) -> Result<()> {
    let expires = format!("souk_certificate_expires{{role=\"{}\"}} {}", role.name, valid.until.unix_timestamp());
    site.cluster.shows(role, &expires).await
}
