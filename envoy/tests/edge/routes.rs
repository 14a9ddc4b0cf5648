//! Compares Envoy's routes with the policies of the contracts.

use std::collections::HashMap;

use chassis::rpc::policy::{Access, Policies, RateClass};
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::{CancelOrderRequest, ListOrdersRequest};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};
use uuid::Uuid;

use crate::harness::{Edge, NOWHERE, find_reason, render, signed, validate};

fn read_policies() -> Policies {
    Policies::read(contracts::DESCRIPTORS).expect("every RPC has a policy")
}

#[test]
fn envoy_accepts_what_can_be_configured() {
    for settings in [
        vec![],
        vec!["--edge-cors-origins=https://a.example,https://b.example:8443", "--edge-otlp-endpoint=127.0.0.1:4317"],
        vec!["--edge-listen=[::1]:8080", "--edge-order-endpoints=order-0.souk:9005,order-1.souk:9005,[::1]:9005"],
        vec![
            "--souk-limit-read-rate=1",
            "--souk-limit-read-burst=1",
            "--souk-limit-account-count=1",
            "--souk-limit-account-window=24h",
        ],
        vec![
            "--souk-token-issuer=https://it's \"quoted\" <&>",
            "--souk-token-audience=a: b # c",
            "--edge-timeout=50ms",
            "--edge-max-body=1",
        ],
        vec!["--edge-proxy-protocol=on", "--edge-trusted-hops=2", "--edge-admin-listen=/tmp/souk-admin.sock"],
    ] {
        // With certificates, their files must exist: see `mutual`.
        let settings = [&["--souk-tls-mode=mesh"], settings.as_slice()].concat();
        assert_eq!(validate(&render(&settings)), Ok(()), "{settings:?}");
    }
}

/// Calls an RPC by its path, without a token and with an empty message.
async fn call(channel: &Channel, path: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = path.parse().expect("a path");
    client.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await.map(|_| ())
}

#[tokio::test]
async fn every_rpc_requires_a_token_by_its_policy() {
    let edge = Edge::start(&[]).await;
    let (policies, channel) = (read_policies(), edge.channel());
    for path in policies.paths() {
        let policy = policies.get(path).expect("it is one of them");
        let refused = call(&channel, path).await.err();
        let seen = refused.as_ref().map(|status| (status.code(), find_reason(status)));
        match (policy.access, policy.rate_class) {
            (Access::Service, _) | (_, RateClass::Internal) => {
                assert_eq!(seen, Some((Code::Unimplemented, "METHOD_NOT_FOUND@souk.edge".to_owned())), "{path}");
            }
            (Access::Customer | Access::Operator, _) => {
                assert_eq!(seen, Some((Code::Unauthenticated, "TOKEN_MISSING@souk.edge".to_owned())), "{path}");
            }
            (Access::Public, _) => {
                assert!(!seen.is_some_and(|(_, reason)| reason.ends_with("@souk.edge")), "{path}: {refused:?}");
            }
        }
    }
    let unknown = call(&channel, "/souk.order.v1.OrderService/Unknown").await.expect_err("there is none");
    assert_eq!(find_reason(&unknown), "METHOD_NOT_FOUND@souk.edge");
    assert!(edge.upstream.calls("BatchGetOrderStates").is_empty());
}

#[tokio::test]
async fn every_route_has_the_settings_of_its_policy() {
    let edge = Edge::start(&["--edge-timeout=4s"]).await;
    let dump = edge.ask_admin("/config_dump").await;
    let is_routes = |config: &&Value| config["@type"].as_str().is_some_and(|it| it.ends_with(".RoutesConfigDump"));
    let dumps = dump["configs"].as_array().expect("a list").iter().find(is_routes).expect("Envoy has routes");
    let host = &dumps["static_route_configs"][0]["route_config"]["virtual_hosts"][0];
    let routes = host["routes"].as_array().unwrap_or_else(|| panic!("no routes: {dumps}"));
    let mut by_path = HashMap::new();
    for route in
        routes.iter().filter(|route| route["match"]["path"].as_str().is_some_and(|it| it.starts_with("/souk.")))
    {
        let path = route["match"]["path"].as_str().expect("it has one");
        assert_eq!(by_path.insert(path, route), None, "one route for {path}");
    }
    let policies = read_policies();
    for path in policies.paths() {
        let policy = policies.get(path).expect("it is one of them");
        let class = match policy.rate_class {
            RateClass::Internal => {
                assert_eq!(by_path.remove(path), None, "{path} is not for clients");
                continue;
            }
            RateClass::Read => json!({"class": "read"}),
            RateClass::Write => json!({"class": "write", "user": "write"}),
            RateClass::Account => json!({"class": "write", "client": "account"}),
        };
        let route = by_path.remove(path).unwrap_or_else(|| panic!("no route for {path}"));
        let token = &route["typed_per_filter_config"]["envoy.filters.http.jwt_authn"];
        let is_public = policy.access == Access::Public;
        assert_eq!(token["disabled"].as_bool().unwrap_or_default(), is_public, "{route}");
        assert_eq!(token["requirement_name"].as_str(), (!is_public).then_some("token"), "{route}");
        assert_eq!(route["metadata"]["filter_metadata"]["souk"], class, "{route}");
        assert_eq!(route["route"]["cluster"], policy.domain.trim_start_matches("souk."), "{route}");
        let (timeout, priority) = if policy.is_stream { ("0s", Some("HIGH")) } else { ("4s", None) };
        assert_eq!(route["route"]["timeout"], timeout, "{route}");
        assert_eq!(route["route"]["priority"].as_str(), priority, "{route}");
        let retry = route["route"]["retry_policy"]["retry_on"].as_str().unwrap_or_default();
        assert_eq!(retry.contains("unavailable"), class["class"] == "read", "only reads may be retried: {route}");
    }
    assert!(by_path.is_empty(), "routes to what is not in the contracts: {by_path:?}");
    assert_eq!(host["retry_policy"]["retry_on"], "connect-failure,refused-stream,reset-before-request");
}

#[tokio::test]
async fn reads_are_retried_and_writes_are_not() {
    let edge = Edge::start(&[]).await;
    let mut orders = OrderServiceClient::new(edge.channel());
    orders.list_orders(signed(&edge.token(), ListOrdersRequest::default())).await.expect("the second time it responds");
    assert_eq!(edge.upstream.calls("ListOrders").len(), 2);
    let cancel = CancelOrderRequest { request_id: "one".to_owned(), order_id: Uuid::now_v7().to_string(), reason: 1 };
    let refused = orders.cancel_order(signed(&edge.token(), cancel)).await.expect_err("it never can");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "not yet"));
    assert_eq!(edge.upstream.calls("CancelOrder").len(), 1);
}

#[tokio::test]
async fn only_reachable_replicas_get_calls() {
    let other = Edge::start(&[]).await;
    let replicas = format!("--edge-user-endpoints={NOWHERE},{}", other.upstream.grpc);
    let edge = Edge::start(&[&replicas]).await;
    for call in 0..50 {
        let response = edge.get("/v1/users/me", &other.token()).await;
        assert_eq!(response.status, 200, "call {call}: {response:?}");
    }
}

#[tokio::test]
async fn keys_and_reflection_need_no_token() {
    let edge = Edge::start(&[]).await;
    let response = edge.call(Method::GET, "/.well-known/jwks.json", &[], None).await;
    assert_eq!((response.status, response.json()["keys"][0]["kid"].as_str()), (200, Some("test")), "{response:?}");

    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let response = edge.call(method, "/.well-known/jwks.json", &[], Some("{}".into())).await;
        response.assert_refused(404, Code::NotFound, "METHOD_NOT_FOUND");
    }

    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(edge.channel());
    let response = client.server_reflection_info(tokio_stream::once(ask)).await.expect("it needs no token");
    assert!(response.into_inner().message().await.expect("a response").is_some());

    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(edge.channel());
    let response = client.server_reflection_info(tokio_stream::once(ask)).await.expect("it needs no token");
    assert!(response.into_inner().message().await.expect("a response").is_some());
}
