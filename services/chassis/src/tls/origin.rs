//! Who called, by the certificate of the connection or, in a mesh, by the header of the sidecar.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The header in which a sidecar names the caller.
const SIDECAR_HEADER: &str = "x-forwarded-client-cert";
/// Those that call roles, beside other roles.
const OTHERS: [&str; 1] = ["edge"];

/// Of the URIs in certificates of our authority.
const CERTIFICATE_PREFIX: &str = "spiffe://souk/";

/// What comes before the name of a party in the URIs that sidecars report, up to the last slash. A service account of the same
/// name elsewhere, in another namespace for example, is another party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPrefix(Arc<str>);

impl FromStr for UriPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("spiffe://").and_then(|path| path.strip_suffix('/'));
        match path {
            Some(path) if path.split('/').all(|part| !part.is_empty()) => Ok(Self(text.into())),
            _ => Err(format!("`{text}` is not a prefix of URIs such as spiffe://cluster.local/ns/souk/sa/")),
        }
    }
}

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
        only(uris).and_then(|uri| Self::parse(uri.strip_prefix(CERTIFICATE_PREFIX)?).ok())
    }

    /// From the header of a sidecar: a URI with this prefix. The header's last element is that of the sidecar's own connection; those before it are what the caller
    /// sent.
    fn of_header(headers: &HeaderMap, prefix: &UriPrefix) -> Option<Self> {
        let text = headers.get_all(SIDECAR_HEADER).into_iter().next_back()?.to_str().ok()?;
        let last = split(text, ',').pop()?;
        let uris = split(last, ';').into_iter().filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case("uri").then(|| value.trim().trim_matches('"'))
        });
        Self::parse(only(uris)?.strip_prefix(&*prefix.0)?).ok()
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
    /// Our sidecar, which names the caller of each request by a URI with this prefix.
    Sidecar(UriPrefix),
    /// Plain text from another machine.
    Unverified,
}

impl Origin {
    /// The party that sent a request, if it is known.
    pub(crate) fn party(&self, headers: &HeaderMap) -> Option<Party> {
        match self {
            Self::Certificate(party) => Some(party.clone()),
            Self::Sidecar(prefix) => Party::of_header(headers, prefix),
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

    fn sidecar() -> Origin {
        Origin::Sidecar("spiffe://cluster.local/ns/souk/sa/".parse().expect("a prefix"))
    }

    #[test]
    fn a_sidecar_names_the_caller_in_the_last_element() {
        const US: &str = "spiffe://cluster.local/ns/souk/sa";
        for (good, party) in [
            (&*format!(r#"By={US}/product;Hash=0a1b;Subject="";URI={US}/order"#), "order"),
            (&format!("URI={US}/edge"), "edge"),
            (&format!(r#"Hash=1;Subject="CN=a\",URI={US}/user,b";URI="{US}/order""#), "order"),
            (&format!("URI={US}/user,By={US}/product;URI={US}/order"), "order"),
        ] {
            assert_eq!(named_by(&sidecar(), &[good]).as_deref(), Some(party), "{good}");
        }
        let (user, order) = (format!("URI={US}/user"), format!("URI={US}/order"));
        assert_eq!(named_by(&sidecar(), &[&user, &order]).as_deref(), Some("order"));
        for odd in [
            "",
            "order",
            "URI=order",
            &format!("URI=https{}/order", US.trim_start_matches("spiffe")),
            &format!("URI={US}/order/x"),
            &format!("URI={US}/"),
            &format!("URI={US}/order;URI={US}/user"),
            &format!("URI={US}/order,By={US}/product"),
            &format!("URI={US}/order,"),
            &format!("URI={US}/kafka"),
            &format!(r#"Subject="URI={US}/order"#),
        ] {
            assert_eq!(named_by(&sidecar(), &[odd]), None, "{odd}");
        }
        assert_eq!(named_by(&sidecar(), &[]), None);
    }

    #[test]
    fn a_service_account_of_another_namespace_is_nobody() {
        for other in [
            "spiffe://cluster.local/ns/other/sa/order",
            "spiffe://other.local/ns/souk/sa/order",
            "spiffe://cluster.local/ns/souk/sa/x/order",
            "spiffe://cluster.local/ns/souk/order",
            "spiffe://souk/order",
        ] {
            assert_eq!(named_by(&sidecar(), &[&format!("URI={other}")]), None, "{other}");
        }
        for odd in ["", "spiffe://", "spiffe:///", "spiffe://cluster.local/ns/souk/sa", "spiffe://a//", "https://a/"] {
            assert!(odd.parse::<UriPrefix>().is_err(), "{odd}");
        }
    }

    #[test]
    fn only_a_sidecar_is_believed() {
        let header = ["URI=spiffe://cluster.local/ns/souk/sa/order"];
        assert_eq!(named_by(&Origin::Unverified, &header), None);
        assert_eq!(named_by(&Origin::Certificate(Party::new("edge")), &header).as_deref(), Some("edge"));
        assert_eq!(named_by(&Origin::Certificate(Party::new("kafka")), &header), None, "it may not call");
    }
}
