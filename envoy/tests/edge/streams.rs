//! Streams of responses: server-sent events over REST, and messages over gRPC.

use contracts::souk::order::v1::WatchOrderRequest;
use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use reqwest::Method;
use serde_json::Value;
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Edge, render, signed};

const ORDER: &str = "01a21008-32a4-7365-bd7c-246a1d31a94e";

/// The id and the data of each event.
fn parse(events: &str) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (id, data) = event.split_once('\n').expect("an id and data");
        let data = data.strip_prefix("data: ").expect("data");
        (id.strip_prefix("id: ").expect("an id").to_owned(), serde_json::from_str(data).expect("JSON"))
    };
    events.trim_end().split("\n\n").map(event).collect()
}

#[tokio::test]
async fn a_stream_is_server_sent_events_with_ids() {
    let edge = Edge::start(&[]).await;
    let token = edge.token();
    let mut response = edge.open(&format!("/v1/orders/{ORDER}:watch"), &token, &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    // It is still open: what was sent has arrived.
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        let chunk = response.chunk().await.expect("it is open").expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    let events = parse(&text);
    assert_eq!((events[0].0.as_str(), &events[0].1["order"]["version"]), ("3", &Value::from("3")));
    assert_eq!((events[1].0.as_str(), &events[1].1["change"]["order"]["version"]), ("4", &Value::from("4")));
    // A title that looks like the beginning of an event is only a title.
    assert_eq!(events[0].1["order"]["items"][0]["title"], r#"data: {"version":"7" "#);

    let ended = edge.get(&format!("/v1/orders/{ORDER}:watch?afterVersion=4"), &token).await;
    let events = parse(&ended.body);
    assert_eq!((events[0].0.as_str(), events[0].1["keepAlive"].is_object()), ("4", true), "{events:?}");
    assert_eq!(events[1].1["end"]["reason"], "WATCH_END_REASON_ORDER_ENDED");

    let resumed = [("last-event-id", "4")];
    edge.open(&format!("/v1/orders/{ORDER}:watch"), &token, &resumed).await;
    let calls = edge.upstream.calls("WatchOrder");
    assert_eq!(calls.last().and_then(|call| call.get("last-event-id")).map(|it| it.as_bytes()), Some(&b"4"[..]));
}

#[tokio::test]
async fn a_stream_is_messages_over_grpc_and_outlives_its_deadline() {
    let edge = Edge::start(&["--edge-timeout=200ms"]).await;
    let mut client = OrderServiceClient::new(edge.channel());
    let ask = WatchOrderRequest { order_id: ORDER.to_owned(), after_version: 0 };
    let mut stream = client.watch_order(signed(&edge.token(), ask)).await.expect("it begins").into_inner();
    for version in [3, 4] {
        assert_eq!(stream.message().await.expect("no error").expect("it goes on").version, version);
    }
    let silence = tokio::time::timeout(std::time::Duration::from_millis(600), stream.message()).await;
    silence.expect_err("nothing, and no end");
}

#[tokio::test]
async fn a_stream_needs_a_token_and_has_no_head() {
    let edge = Edge::start(&[]).await;
    let path = format!("/v1/orders/{}:watch", Uuid::now_v7());
    edge.call(Method::GET, &path, &[], None).await.assert_refused(401, Code::Unauthenticated, "TOKEN_MISSING");
    let token = format!("Bearer {}", edge.token());
    let head = edge.call(Method::HEAD, &format!("{path}?afterVersion=4"), &[("authorization", &token)], None).await;
    assert_eq!(head.status, 404);
    edge.get(&format!("{path}?after=4"), &edge.token()).await.assert_refused(
        400,
        Code::InvalidArgument,
        "REQUEST_INVALID",
    );
    assert!(edge.upstream.calls("WatchOrder").is_empty());
}

/// They take no room from other calls.
#[test]
fn streams_have_connections_of_their_own() {
    let yaml = render(&["--souk-tls-mode=mesh"]);
    let route = yaml.split("- match: ").find(|route| route.contains("OrderService/WatchOrder")).expect("a route");
    for line in ["timeout: 0s", "idle_timeout: 120s", "priority: HIGH", "reset,unavailable"] {
        assert!(route.contains(line), "{line}: {route}");
    }
    assert!(yaml.contains("{priority: HIGH, max_connections: 1024"));
}
