//! Rate limits.

use contracts::souk::order::v1::ListOrderEventsRequest;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::user::v1::CreateSessionRequest;
use contracts::souk::user::v1::session_service_client::SessionServiceClient;
use reqwest::Method;
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Edge, RestResponse, assert_refused};

async fn log_in(edge: &Edge, address: &str) -> RestResponse {
    let credentials = json!({"email": "a@example.com", "password": "a long enough one"}).to_string();
    let forged = [("x-forwarded-for", address), ("content-type", "application/json")];
    edge.call(Method::POST, "/v1/sessions", &forged, Some(credentials.into())).await
}

#[tokio::test]
async fn guessing_ends_at_the_limit_of_accounts() {
    let edge = Edge::start(&["--souk-limit-account-count=3", "--souk-limit-account-window=1h"]).await;
    let body = json!({"email": "a@example.com", "password": "a long enough one", "displayName": "A"}).to_string();
    let registered = edge.call(Method::POST, "/v1/users", &[], Some(body.into())).await;
    assert_eq!(registered.status, 200, "{registered:?}");
    for call in 0..2 {
        let response = log_in(&edge, &format!("9.9.9.{call}")).await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    let response = log_in(&edge, "9.9.9.9").await;
    response.assert_refused(429, Code::ResourceExhausted, "RATE_LIMITED");
    let seconds = response.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| (1..=3_600).contains(&seconds)), "{response:?}");

    let (email, password) = ("a@example.com".to_owned(), "long enough".to_owned());
    let credentials = CreateSessionRequest { email, password, device: String::new() };
    let response = SessionServiceClient::new(edge.channel()).create_session(credentials).await;
    assert_refused(response, Code::ResourceExhausted, "RATE_LIMITED");
    assert_eq!(edge.get("/v1/users/me", &edge.token()).await.status, 200, "reads have a limit of their own");
}

#[tokio::test]
async fn bad_tokens_are_counted() {
    let edge = Edge::start(&["--souk-limit-read-rate=1", "--souk-limit-read-burst=5"]).await;
    let mut refused = Vec::new();
    for _ in 0..20 {
        refused.push(edge.get("/v1/users/me", "garbage").await.status);
    }
    assert_eq!(refused[..5], [401; 5]);
    assert!(refused.iter().filter(|status| **status == 429).count() >= 10, "{refused:?}");
    let events = ListOrderEventsRequest { order_id: Uuid::now_v7().to_string(), ..Default::default() };
    let response = OrderServiceClient::new(edge.channel()).list_order_events(events.clone()).await;
    assert_refused(response, Code::ResourceExhausted, "RATE_LIMITED");
}
