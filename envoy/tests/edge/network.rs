//! Clients on a network: TLS, balancers before the edge, networks of addresses, connections, and what browsers are told.

use std::path::Path;

use contracts::souk::user::v1::GetUserRequest;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::Method;
use serde_json::json;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use uuid::Uuid;

use crate::harness::{Edge, RestResponse, make_address, make_folder, signed, wait};

/// Replaces the certificate and its key, then the file that names them, and returns the certificate.
fn write_certificate(folder: &Path, version: u32) -> String {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let [certificate, key] = ["crt", "key"].map(|kind| folder.join(format!("{version}.{kind}")));
    std::fs::write(&certificate, cert.pem()).expect("the folder is ours");
    std::fs::write(&key, signing_key.serialize_pem()).expect("the folder is ours");
    let secret = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "server",
        "tls_certificate": {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}},
    }]});
    let new = folder.join("new");
    std::fs::write(&new, secret.to_string()).expect("the folder is ours");
    std::fs::rename(&new, folder.join("server.yaml")).expect("the folder is ours");
    cert.pem()
}

fn client(certificate: &str) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).expect("a certificate");
    reqwest::Client::builder().tls_certs_only([certificate]).build().expect("a client")
}

#[tokio::test]
async fn clients_may_use_tls_and_certificates_are_read_again() {
    let folder = make_folder();
    let certificate = write_certificate(&folder.0, 1);
    let file = format!("--edge-tls-secret-file={}", folder.0.join("server.yaml").display());
    let edge = Edge::start(&["--edge-tls-listen=127.0.0.1:0", &file]).await;
    let port = edge.find_listener("edge_tls").await.port();
    let url = format!("https://localhost:{port}/v1/users/me");

    // HTTP/1.1.
    let response = client(&certificate).get(&url).bearer_auth(edge.token()).send().await.expect("it is trusted");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
    // gRPC, which is HTTP/2 by ALPN.
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&certificate)).domain_name("localhost");
    let channel = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).expect("a URL").tls_config(tls);
    let channel = channel.expect("good settings").connect().await.expect("it is trusted");
    let request = signed(&edge.token(), GetUserRequest { user_id: "me".to_owned() });
    UserServiceClient::new(channel).get_user(request).await.expect("the token is good");

    let plain = edge.get("/v1/users/me", &edge.token()).await;
    assert_eq!(plain.header("strict-transport-security"), None, "it would be ignored, and is forbidden: {plain:?}");

    let renewed = write_certificate(&folder.0, 2);
    wait("the new certificate", async || client(&renewed).get(&url).send().await.ok()).await;
    client(&certificate).get(&url).send().await.expect_err("the old certificate is no longer shown");
}

async fn log_in(edge: &Edge, forwarded: &str) -> RestResponse {
    let credentials = json!({"email": "a@example.com", "password": "a long enough one"}).to_string();
    edge.call(Method::POST, "/v1/sessions", &[("x-forwarded-for", forwarded)], Some(credentials.into())).await
}

#[tokio::test]
async fn behind_a_balancer_clients_are_told_apart_by_what_it_appends_and_not_by_what_they_forge() {
    let edge = Edge::start_counting(&["--edge-trusted-hops=1", "--souk-limit-account-count=2"]).await;
    let (one, other) = (make_address(), make_address());
    for (forged, expected) in [("", 200), ("1.1.1.1, ", 200), ("2.2.2.2, ", 429), ("3.3.3.3, 4.4.4.4, ", 429)] {
        let response = log_in(&edge, &format!("{forged}{one}")).await;
        assert_eq!(response.status, expected, "{forged}: {response:?}");
    }
    let response = log_in(&edge, &other.to_string()).await;
    assert_eq!(response.status, 200, "another client of the same balancer: {response:?}");

    let me = [("authorization", format!("Bearer {}", edge.token())), ("x-forwarded-for", format!("6.6.6.6, {one}"))];
    let me = me.each_ref().map(|(name, value)| (*name, value.as_str()));
    let forged = [("x-forwarded-host", "forged"), ("x-forwarded-foreign", "forged"), ("x-forwarded-f", "forged")];
    edge.call(Method::GET, "/v1/users/me", &[&me[..], &forged].concat(), None).await;
    let arrived = edge.upstream.calls("GetUser");
    for (name, _) in forged.iter().chain(&[("x-forwarded-for", "")]) {
        assert_eq!(arrived[0].get(*name), None, "{arrived:?}");
    }
}

#[tokio::test]
async fn at_a_listener_without_a_balancer_nobody_forges_their_address() {
    let folder = make_folder();
    write_certificate(&folder.0, 1);
    let file = format!("--edge-tls-secret-file={}", folder.0.join("server.yaml").display());
    let settings = ["--edge-tls-listen=127.0.0.1:0", &file, "--edge-trusted-hops=1", "--souk-limit-account-count=2"];
    let edge = Edge::start_counting(&settings).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(log_in(&edge, &make_address().to_string()).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test]
async fn a_network_of_addresses_has_a_limit_of_its_own() {
    let settings = ["--edge-trusted-hops=1", "--souk-limit-account-count=2", "--souk-limit-network-factor=2"];
    let edge = Edge::start_counting(&settings).await;
    // The /48 is random, as the counts of earlier runs are in the same Redis.
    let [.., a, b, c, d] = *Uuid::now_v7().as_bytes();
    let network = format!("2001:{a:02x}{b:02x}:{c:02x}{d:02x}");
    let mut admitted = Vec::new();
    for host in 1..=6 {
        admitted.push(log_in(&edge, &format!("{network}:1::{host}")).await.status == 200);
    }
    assert_eq!(admitted, [true, true, false, false, false, false], "a /64 is one client");
    let mut admitted = 0;
    for subnet in 2..40 {
        admitted += u32::from(log_in(&edge, &format!("{network}:{subnet:x}::1")).await.status == 200);
    }
    assert_eq!(admitted, 2, "a /48 may do as much as two clients");
    let response = log_in(&edge, &make_address().to_string()).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test]
async fn rotating_addresses_does_not_empty_the_limits_of_the_edge() {
    let edge = Edge::start(&[
        "--edge-trusted-hops=1",
        "--souk-limit-read-rate=1",
        "--souk-limit-read-burst=2",
        "--souk-limit-network-factor=3",
    ])
    .await;
    let begun = std::time::Instant::now();
    let mut admitted = 0;
    for subnet in 0..200 {
        let forwarded = format!("2001:db8:1:{subnet:x}::1");
        let response = edge.call(Method::GET, "/v1/users/me", &[("x-forwarded-for", &forwarded)], None).await;
        admitted += u64::from(response.status == 401);
    }
    // The network has a burst of 6, and 3 more each second.
    assert!((6..=6 + 3 * (begun.elapsed().as_secs() + 1)).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn a_balancer_may_tell_the_client_by_the_proxy_protocol() {
    let settings = ["--edge-proxy-protocol=on", "--souk-limit-account-count=1", "--souk-limit-account-window=1h"];
    let edge = Edge::start(&settings).await;
    let body = json!({"email": "a@example.com", "password": "a long enough one"}).to_string();
    let head = format!("POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: {}", body.len());
    let login = format!("{head}\r\n\r\n{body}");
    let mut statuses = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"] {
        let response = edge.send_from(edge.source, &format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\n{login}")).await;
        statuses.push(response.split(' ').nth(1).map(str::to_owned).unwrap_or(response));
    }
    // Without the gateway, the edge counts for itself, a tenth wider.
    assert_eq!(statuses, ["200", "200", "429", "200"]);
    assert_eq!(edge.send_from(edge.source, &login).await, "", "a connection without the protocol is closed");
}

#[tokio::test]
async fn new_connections_of_an_address_are_limited() {
    let edge = Edge::start_counting(&["--souk-limit-connection-rate=1", "--souk-limit-connection-burst=5"]).await;
    let request = "GET /v1/users/me HTTP/1.1\r\nhost: x\r\n\r\n";
    let (begun, source, mut served) = (std::time::Instant::now(), make_address(), 0);
    for _ in 0..20 {
        let response = edge.send_from(source, request).await;
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 401 "), "{response}");
        served += u64::from(!response.is_empty());
    }
    assert!((5..=6 + begun.elapsed().as_secs()).contains(&served), "{served}");
    assert!(edge.send_from(make_address(), request).await.starts_with("HTTP/1.1 401 "), "of another address");
}

#[tokio::test]
async fn long_responses_are_compressed_for_clients_that_ask() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.sign(json!({"role": "operator"})));
    let ask = async |path: &str, encodings: &str| {
        let headers = [("authorization", bearer.as_str()), ("accept-encoding", encodings)];
        edge.call(Method::GET, path, &headers, None).await
    };
    for (asked, expected) in [("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd")] {
        let response = ask("/v1/payments", asked).await;
        assert_eq!((response.status, response.header("content-encoding")), (200, Some(expected)), "{response:?}");
        let length = response.header("content-length").and_then(|length| length.parse().ok());
        assert!(length.unwrap_or(0) < 1_000, "{response:?}");
        assert_eq!(ask("/v1/users/me", asked).await.header("content-encoding"), None, "it is short");
    }
    assert_eq!(ask("/v1/payments", "identity").await.body.len(), ask("/v1/payments", "").await.body.len());
}

#[tokio::test]
async fn every_response_tells_browsers_not_to_show_or_keep_it() {
    let edge = Edge::start(&[]).await;
    for (path, token) in [("/v1/users/me", edge.token()), ("/v1/users/me", String::new()), ("/nowhere", String::new())]
    {
        let response = edge.get(path, &token).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(response.header(name), Some(value), "{path}: {response:?}");
        }
    }
}
