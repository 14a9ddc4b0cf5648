//! Where Envoy listens, and what every response tells browsers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use crate::{Config, Endpoint, Error, absolute};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Where clients connect without TLS, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain(Option<SocketAddr>);

pub(crate) fn parse_plain(text: &str) -> Result<Plain, String> {
    if text == "off" {
        return Ok(Plain(None));
    }
    let address =
        text.parse().map_err(|_| format!("`{text}` is neither an address such as 127.0.0.1:8080 nor `off`"))?;
    Ok(Plain(Some(address)))
}

/// The address of the admin interface, which has no authentication: only this machine may reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admin {
    Loopback(SocketAddr),
    Socket(PathBuf),
}

impl fmt::Display for Admin {
    /// As Envoy's configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self {
            Self::Loopback(it) => serde_json::json!({
                "socket_address": {"address": it.ip().to_string(), "port_value": it.port()},
            }),
            Self::Socket(path) => serde_json::json!({"pipe": {"path": path}}),
        };
        address.fmt(f)
    }
}

pub(crate) fn parse_admin(text: &str) -> Result<Admin, String> {
    if text.starts_with('/') {
        return Ok(Admin::Socket(text.into()));
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        format!(
            "`{text}` is neither an address such as 127.0.0.1:19901 nor the path of a socket such as /run/envoy.sock"
        )
    })?;
    if address.ip().is_loopback() { Ok(Admin::Loopback(address)) } else { Err(format!("`{text}` is not on loopback")) }
}

#[derive(Debug, Serialize)]
pub(crate) struct Listener {
    name: &'static str,
    address: Endpoint,
    is_tls: bool,
    /// See `EDGE_TRUSTED_HOPS`.
    trusted_hops: u32,
    /// See `EDGE_PROXY_PROTOCOL`.
    proxy_protocol: bool,
}

/// With two of them, each counts the limits that are not exact for itself. Passwords and tokens do not leave this machine in plain
/// text, unless a setting says that they go to a balancer that terminates TLS.
pub(crate) fn of(config: &Config) -> Result<Vec<Listener>, Error> {
    let Plain(plain) = config.listen;
    if let Some(listen) = plain.filter(|listen| !listen.ip().is_loopback() && config.plain == Switch::Off) {
        return Err(Error::Plain(listen));
    }
    let plain = plain.map(|listen| (listen, "edge", false));
    let tls = config.tls_listen.map(|listen| (listen, "edge_tls", true));
    let all = [plain, tls].into_iter().flatten();
    let all = all.map(|(listen, name, is_tls)| {
        let address = Endpoint { host: listen.ip().to_string(), port: listen.port() };
        // What a client says at the other listener, which no balancer is before, would be forged.
        let has_balancer = is_tls || config.tls_listen.is_none();
        let trusted_hops = if has_balancer { config.trusted_hops } else { 0 };
        let proxy_protocol = has_balancer && config.proxy_protocol == Switch::On;
        Listener { name, address, is_tls, trusted_hops, proxy_protocol }
    });
    let all: Vec<_> = all.collect();
    if all.is_empty() { Err(Error::NoListener) } else { Ok(all) }
}

#[derive(Debug, Serialize)]
pub(crate) struct Secret {
    name: &'static str,
    file: PathBuf,
}

/// The certificate that clients see.
pub(crate) fn secret(config: &Config) -> Result<Secret, Error> {
    match &config.tls_secret_file {
        Some(file) => Ok(Secret { name: "server", file: absolute("EDGE_TLS_SECRET_FILE", file)? }),
        None => {
            let folder = absolute("EDGE_SECRETS_DIRECTORY", &config.secrets_directory)?;
            Ok(Secret { name: "edge", file: folder.join("edge.yaml") })
        }
    }
}

/// Unless the response has them. A browser must show none of our responses as a page, and keep none.
pub(crate) const SECURITY_HEADERS: [(&str, &str); 6] = [
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_interface_is_on_this_machine_only() {
        for (good, expected) in [
            ("127.0.0.1:19901", r#"{"socket_address":{"address":"127.0.0.1","port_value":19901}}"#),
            ("[::1]:1", r#"{"socket_address":{"address":"::1","port_value":1}}"#),
            ("/run/envoy/admin.sock", r#"{"pipe":{"path":"/run/envoy/admin.sock"}}"#),
        ] {
            assert_eq!(parse_admin(good).map(|admin| admin.to_string()).as_deref(), Ok(expected));
        }
        for odd in ["0.0.0.0:19901", "[::]:19901", "10.0.0.1:19901", "localhost:19901", "run/admin.sock", ""] {
            assert!(parse_admin(odd).is_err(), "{odd}");
        }
    }
}
