//! Who called, by the certificate of the connection or, in a mesh, by the header of the sidecar.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The header in which a sidecar names the caller.
const SIDECAR_HEADER: &str = "x-forwarded-client-cert";
/// Those that call roles, beside other roles: the edge, and the service that sends mails, which is not in the roster yet.
const OTHERS: [&str; 2] = ["edge", "notification"];

/// One side of a connection, such as `order` or `edge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party(Arc<str>);

impl Party {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// From a certificate that was verified: it has exactly one URI, `spiffe://souk/<party>`.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        only(uris).and_then(|uri| Self::parse(uri.strip_prefix("spiffe://souk/")?).ok())
    }

    /// From the header of a sidecar. Its last element is that of the sidecar's own connection; those before it are what the caller
    /// sent.
    fn of_header(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get_all(SIDECAR_HEADER).into_iter().next_back()?.to_str().ok()?;
        let last = split(text, ',').pop()?;
        let uris = split(last, ';').into_iter().filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case("uri").then(|| value.trim().trim_matches('"'))
        });
        let path = only(uris)?.strip_prefix("spiffe://")?;
        match path.split('/').collect::<Vec<_>>()[..] {
            ["souk", party] => Self::parse(party).ok(),
            [domain, "ns", namespace, "sa", account] if !domain.is_empty() && !namespace.is_empty() => {
                Self::parse(account).ok()
            }
            _ => None,
        }
    }

    /// From letters, digits and hyphens.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let is_name = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        if is_name { Ok(Self::new(name)) } else { Err(format!("`{name}` is not a name such as `dev`")) }
    }

    /// Whether it calls roles wherever Souk runs.
    pub(crate) fn is_part_of_souk(&self) -> bool {
        roster::ROLES.iter().any(|role| role.name == self.name()) || OTHERS.contains(&self.name())
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a connection says about who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The party that the caller's certificate names.
    Certificate(Party),
    /// Our sidecar, which names the caller of each request.
    Sidecar,
    /// Plain text from another machine.
    Unverified,
}

impl Origin {
    /// The party that sent a request, if it is known.
    pub(crate) fn party(&self, headers: &HeaderMap) -> Option<Party> {
        match self {
            Self::Certificate(party) => Some(party.clone()),
            Self::Sidecar => Party::of_header(headers),
            Self::Unverified => None,
        }
    }
}

/// Several names would leave it open which one is meant.
fn only<'a>(mut all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// Splits at separators that are not within quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter| {
        let is_end = letter == separator && !is_quoted;
        match letter {
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
        is_end
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_by(origin: &Origin, values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SIDECAR_HEADER, value.parse().expect("a header value"));
        }
        origin.party(&headers).filter(Party::is_part_of_souk).map(|party| party.to_string())
    }

    #[test]
    fn a_sidecar_names_the_caller_in_the_last_element() {
        let istio = r#"By=spiffe://cluster.local/ns/souk/sa/product;Hash=0a1b;Subject="";URI=spiffe://cluster.local/ns/souk/sa/order"#;
        assert_eq!(named_by(&Origin::Sidecar, &[istio]).as_deref(), Some("order"));
        for (good, party) in [
            ("URI=spiffe://souk/edge", "edge"),
            (r#"Hash=1;Subject="CN=a\",URI=spiffe://souk/user,b";URI="spiffe://souk/order""#, "order"),
            ("URI=spiffe://souk/user,By=spiffe://souk/product;URI=spiffe://souk/order", "order"),
        ] {
            assert_eq!(named_by(&Origin::Sidecar, &[good]).as_deref(), Some(party), "{good}");
        }
        assert_eq!(named_by(&Origin::Sidecar, &["URI=spiffe://souk/user", istio]).as_deref(), Some("order"));
        for odd in [
            "",
            "order",
            "URI=order",
            "URI=https://souk/order",
            "URI=spiffe://souk/order/x",
            "URI=spiffe://other/order",
            "URI=spiffe:///ns/souk/sa/order",
            "URI=spiffe://souk/ns/souk/sa/",
            "URI=spiffe://souk/order;URI=spiffe://souk/user",
            "URI=spiffe://souk/order,By=spiffe://souk/product",
            "URI=spiffe://souk/order,",
            "URI=spiffe://souk/kafka",
            r#"Subject="URI=spiffe://souk/order"#,
        ] {
            assert_eq!(named_by(&Origin::Sidecar, &[odd]), None, "{odd}");
        }
        assert_eq!(named_by(&Origin::Sidecar, &[]), None);
    }

    #[test]
    fn only_a_sidecar_is_believed() {
        let header = ["URI=spiffe://souk/order"];
        assert_eq!(named_by(&Origin::Unverified, &header), None);
        assert_eq!(named_by(&Origin::Certificate(Party::new("edge")), &header).as_deref(), Some("edge"));
        assert_eq!(named_by(&Origin::Certificate(Party::new("kafka")), &header), None, "it may not call");
    }
}
