//! A service reads what a REST client wrote, or the request is refused naming the field: unknown fields, fields that occur
//! twice, bodies that are not JSON, and contradictions of path, query and body.

use std::future::poll_fn;

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use reqwest::Method;
use serde_json::json;
use tonic::Code;
use tonic::body::Body;
use tonic::client::GrpcService;
use uuid::Uuid;

use crate::harness::{Edge, RestResponse, make_key, sign};

const ID: &str = "01a22080-31bf-734b-ab66-d08b4f7932bf";

/// A customer, and the edge that they call.
struct Client {
    edge: Edge,
    token: String,
}

impl Client {
    async fn open(settings: &[&str]) -> Client {
        let edge = Edge::start(&[settings, &["--souk-limit-customer-write-burst=1000000"]].concat()).await;
        let token = edge.token();
        Client { edge, token }
    }

    async fn order(&self, body: &str) -> RestResponse {
        self.edge.post("/v1/orders", &self.token, body.to_owned()).await
    }

    async fn refund(&self, body: &str) -> RestResponse {
        self.edge.post(&format!("/v1/payments/{ID}:refund"), &self.token, body.to_owned()).await
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> RestResponse {
        let bearer = format!("Bearer {}", self.token);
        self.edge.call(method, path, &[("authorization", &bearer)], Some(body.to_owned().into())).await
    }

    /// None of the refused requests came to a service.
    fn assert_untouched(&self) {
        for rpc in ["CreateOrder", "RefundPayment", "UpdateUser", "CancelOrder", "RegisterUser"] {
            assert!(self.edge.upstream.calls(rpc).is_empty(), "{rpc} was called");
        }
    }
}

/// A valid order with more members.
fn order_with(more: &str) -> String {
    format!(r#"{{"items": [{{"productId": "{ID}", "quantity": 1}}], "paymentMethod": "pm_card_visa"{more}}}"#)
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_its_path() {
    let client = Client::open(&[]).await;
    client.refund(r#"{"amount": 100, "reason": "REFUND_REASON_GOODS"}"#).await.assert_invalid("amount");
    // If this field were dropped, an order would be placed.
    client.order(&order_with(r#", "validateonly": true"#)).await.assert_invalid("validateonly");
    for (body, field) in [
        (r#"{"items": [{"qty": 1}]}"#, "items[0].qty"),
        (r#"{"items": [{"quantity": 1}, {"quantity": 1, "Quantity": 2}]}"#, "items[1].Quantity"),
        (r#"{"shippingAddress": {"zip": "1"}}"#, "shipping_address.zip"),
        (r#"{"shipping_address": {"a.b": "1"}}"#, "shipping_address.a.b"),
        (r#"{"": 1}"#, ""),
        (r#"{"x": {"deep": [{"and": null}]}}"#, "x"),
        (r#"{"\u0061\"\n\u00e9": 1}"#, "a\"\n\u{e9}"),
        (r#"{"@type": "x"}"#, "@type"),
        (r#"{"1": 1}"#, "1"),
    ] {
        if field.is_empty() {
            client.order(body).await.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        } else {
            client.order(body).await.assert_invalid(field);
        }
    }
    client.send(Method::PATCH, "/v1/users/me", r#"{"name": "x"}"#).await.assert_invalid("user.name");
    client.send(Method::PATCH, "/v1/users/me", r#"{"user": {}}"#).await.assert_invalid("user.user");
    let long = "x".repeat(5_000);
    let response = client.order(&format!(r#"{{"{long}": 1}}"#)).await;
    response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    assert!(response.body.len() < 1_000, "a long name is not repeated: {response:?}");
    client.assert_untouched();
}

#[tokio::test]
async fn a_field_that_occurs_twice_is_refused_in_any_spelling() {
    let client = Client::open(&[]).await;
    for (body, field) in [
        (r#"{"amountMinor": 1, "amountMinor": 1}"#, "amount_minor"),
        (r#"{"amountMinor": 1, "amount_minor": 2}"#, "amount_minor"),
        (r#"{"amount_minor": 1, "amount\u004dinor": 2}"#, "amount_minor"),
        (r#"{"amountMinor": null, "amountMinor": 2}"#, "amount_minor"),
        (r#"{"\u0072eason": 1, "reason": 2}"#, "reason"),
    ] {
        client.refund(body).await.assert_invalid(field);
    }
    client.order(r#"{"items": [], "items": []}"#).await.assert_invalid("items");
    let nested = r#"{"items": [{"productId": "a", "quantity": 1, "product_id": "b"}]}"#;
    client.order(nested).await.assert_invalid("items[0].product_id");
    client.assert_untouched();
    // Both spellings are accepted.
    for body in [r#"{"amountMinor": 1, "reason": 1}"#, r#"{"amount_minor": "1", "reason": "REFUND_REASON_FRAUD"}"#] {
        assert_eq!(client.refund(body).await.status, 200);
    }
    assert_eq!(client.refund(r#"{"amount\u004dinor": 1, "r\u0065ason": 1}"#).await.status, 200);
}

#[tokio::test]
async fn a_value_of_another_kind_is_refused() {
    let client = Client::open(&[]).await;
    for (value, field) in [
        (r#""items": {"productId": "a"}"#, "items"),
        (r#""items": [[{"productId": "a"}]]"#, "items[0]"),
        (r#""items": [null]"#, "items[0]"),
        (r#""items": [{"quantity": 1}, null]"#, "items[1]"),
        (r#""items": [{"quantity": true}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": 1.5}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": 2147483648}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": -2147483649}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": "1 "}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": ""}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": 1e99}]"#, "items[0].quantity"),
        (r#""items": [{"quantity": [1]}]"#, "items[0].quantity"),
        (r#""items": "none""#, "items"),
        (r#""paymentMethod": 7"#, "payment_method"),
        (r#""paymentMethod": {}"#, "payment_method"),
        (r#""paymentMethod": ["pm_card_visa"]"#, "payment_method"),
        (r#""validateOnly": "true""#, "validate_only"),
        (r#""validateOnly": 1"#, "validate_only"),
        (r#""shippingAddress": "here""#, "shipping_address"),
        (r#""shippingAddress": {"lines": "one"}"#, "shipping_address.lines"),
        (r#""shippingAddress": {"lines": ["one", null]}"#, "shipping_address.lines[1]"),
    ] {
        client.order(&format!("{{{value}}}")).await.assert_invalid(field);
    }
    for value in [r#""REFUND_REASON_NONE""#, r#""refund_reason_goods""#, r#""1""#, "true", "1.5", "[]", "{}"] {
        client.refund(&format!(r#"{{"reason": {value}}}"#)).await.assert_invalid("reason");
    }
    for minor in ["9223372036854775808", "-9223372036854775809", "\"99999999999999999999\"", "1e30"] {
        client.refund(&format!(r#"{{"amountMinor": {minor}}}"#)).await.assert_invalid("amount_minor");
    }
    client.assert_untouched();
    // In protobuf's JSON, numbers may be strings, and null is the same as absent.
    for good in [
        r#"{"amountMinor": "9", "reason": 1}"#,
        r#"{"amountMinor": 1e1, "reason": 1}"#,
        r#"{"amountMinor": null, "reason": "REFUND_REASON_GOODS"}"#,
    ] {
        assert_eq!(client.refund(good).await.status, 200, "{good}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_with_any_content_type() {
    let client = Client::open(&[]).await;
    for body in [
        "{\"items\": [",
        "{\"items\": []",
        "{\"items\": [],}",
        "{\"items\": [{},]}",
        "{'items': []}",
        "{items: []}",
        "{\"items\" = []}",
        "{\"items\": []} x",
        "{\"items\": []}{}",
        "{\"items\": []}\0",
        "{\"items\": [] /* none */}",
        "{\"items\": [] \"paymentMethod\": \"x\"}",
        "{\"items\": [] , , \"paymentMethod\": \"x\"}",
        "{,\"items\": []}",
        "{\"paymentMethod\": \"a\nb\"}",
        "{\"paymentMethod\": \"\\x41\"}",
        "{\"paymentMethod\": \"\\u12\"}",
        "{\"paymentMethod\": \"\\ud800\"}",
        "{\"paymentMethod\": \"\\ud800\\u0041\"}",
        "{\"paymentMethod\": \"\\udc00\"}",
        "{\"paymentMethod\": \"a\\\"}",
        "{\"items\": [{\"quantity\": 01}]}",
        "{\"items\": [{\"quantity\": +1}]}",
        "{\"items\": [{\"quantity\": 1.}]}",
        "{\"items\": [{\"quantity\": .1}]}",
        "{\"items\": [{\"quantity\": 0x1}]}",
        "{\"items\": [{\"quantity\": 1 2}]}",
        "{\"items\": [{\"quantity\": NaN}]}",
        "{\"items\": [}",
        "{\"items\": [{]}",
        "{\"validateOnly\": tru}",
        "{\"validateOnly\": trueish}",
        "{\"items\"}",
        "{\"items\":}",
        "{\"items\": nul}",
        "{",
        "}",
        "\u{feff}{\"items\": []}",
        "  ",
        "null",
        "[]",
        "7",
        "\"x\"",
        "items=1&paymentMethod=x",
    ] {
        for content_type in
            ["application/json", "text/plain", "application/grpc; x", "application/x-www-form-urlencoded"]
        {
            let bearer = format!("Bearer {}", client.token);
            let headers = [("authorization", bearer.as_str()), ("content-type", content_type)];
            let response = client.edge.call(Method::POST, "/v1/orders", &headers, Some(body.into())).await;
            response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        }
    }
    client.order("  ").await.assert_malformed();
    let bearer = format!("Bearer {}", client.token);
    for odd in [&b"{\"paymentMethod\": \"\xff\"}"[..], b"{\"paymentMethod\": \"\xc0\xaf\"}", b"{\"\xe9\": 1}"] {
        let body = Some(odd.to_vec().into());
        let response = client.edge.call(Method::POST, "/v1/orders", &[("authorization", &bearer)], body).await;
        response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    }
    client.assert_untouched();
}

#[tokio::test]
async fn bodies_are_bounded_in_depth_in_values_and_in_bytes() {
    let client = Client::open(&["--edge-max-body=3000000"]).await;
    for (open, close) in [("[", "]"), ("{\"items\":", "}"), ("{\"a\":", "}")] {
        let deep = format!("{{\"items\": {}1{}}}", open.repeat(100_000), close.repeat(100_000));
        client.order(&deep).await.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    }
    let many = vec!["{}"; 20_000].join(",");
    client.order(&format!("{{\"items\": [{many}]}}")).await.assert_malformed();
    // Up to its limit, the edge passes a large valid body; the service refuses it.
    let response = client.order(&json!({"paymentMethod": "x".repeat(2_900_000)}).to_string()).await;
    assert_eq!((response.status, &response.json()["details"][0]["domain"]), (400, &json!("souk.order")));
    let response = client.order(&json!({"paymentMethod": "x".repeat(3_100_000)}).to_string()).await;
    response.assert_refused(413, Code::ResourceExhausted, "BODY_TOO_LARGE");
    client.assert_untouched();
}

#[tokio::test]
async fn beside_a_body_there_are_no_parameters() {
    let client = Client::open(&[]).await;
    let good = order_with("");
    for (query, field) in [
        ("paymentMethod=pm_card_chargeDeclined", "paymentMethod"),
        ("payment_method=pm_card_chargeDeclined", "payment_method"),
        ("%70aymentMethod=pm_card_chargeDeclined", "paymentMethod"),
        ("validateOnly=true", "validateOnly"),
        ("items.quantity=5", "items.quantity"),
        ("nonsense", "nonsense"),
        ("&&x=1", "x"),
    ] {
        client.send(Method::POST, &format!("/v1/orders?{query}"), &good).await.assert_invalid(field);
    }
    let path = format!("/v1/payments/{ID}:refund?amountMinor=1");
    client.send(Method::POST, &path, r#"{"reason": 1}"#).await.assert_invalid("amountMinor");
    // If the body is one field, as of a PATCH, parameters may set the other fields, and only those.
    let patch = async |query: &str| {
        client.send(Method::PATCH, &format!("/v1/users/me?{query}"), r#"{"displayName": "y"}"#).await
    };
    for (query, field) in [
        ("user.displayName=x", "user.display_name"),
        ("user.display_name=x", "user.display_name"),
        ("user=x", "user"),
        ("user.userId=x", "user.user_id"),
        ("updateMask=displayName&update_mask=email", "update_mask"),
        ("updateMask=displayName&updateMask=email", "update_mask"),
        ("updatemask=displayName", "updatemask"),
        ("displayName=x", "displayName"),
    ] {
        patch(query).await.assert_invalid(field);
    }
    client.assert_untouched();
    for query in ["", "updateMask=displayName", "update_mask=displayName"] {
        assert_eq!(patch(query).await.status, 200, "{query}");
    }
    assert_eq!(client.send(Method::POST, "/v1/orders?", &good).await.status, 200, "an empty query is no parameter");
}

#[tokio::test]
async fn path_query_and_body_must_not_contradict() {
    let client = Client::open(&[]).await;
    let other = Uuid::now_v7();
    for body in [
        format!(r#"{{"paymentId": "{other}", "reason": 1}}"#),
        format!(r#"{{"payment_id": "{other}", "reason": 1}}"#),
        format!(r#"{{"payment\u0049d": "{other}", "reason": 1}}"#),
        r#"{"paymentId": "", "reason": 1}"#.to_owned(),
    ] {
        client.refund(&body).await.assert_invalid("payment_id");
    }
    for body in [r#"{"userId": "you"}"#, r#"{"user_id": "you"}"#, r#"{"userId": "\u006de "}"#] {
        client.send(Method::PATCH, "/v1/users/me", body).await.assert_invalid("user.user_id");
    }
    client.assert_untouched();
    // A client that changes what it has read sends the id, too.
    for body in [r#"{"userId": "me"}"#, r#"{"user_id": "me"}"#, r#"{"userId": "\u006de"}"#, r#"{"userId": null}"#] {
        assert_eq!(client.send(Method::PATCH, "/v1/users/me", body).await.status, 200, "{body}");
        let path = "/v1/users/%6d%65";
        assert_eq!(client.send(Method::PATCH, path, body).await.status, 200, "{path} {body}");
    }
    for query in ["userId=other", "user_id=other", "userId=me", "%75serId=other"] {
        client.edge.get(&format!("/v1/users/me?{query}"), &client.token).await.assert_invalid("user_id");
    }
    assert!(client.edge.upstream.calls("GetUser").is_empty());
    for query in ["pageSize=1&pageSize=2", "pageSize=1&page_size=2"] {
        client.edge.get(&format!("/v1/payments?{query}"), &client.token).await.assert_invalid("page_size");
    }
    assert_eq!(client.edge.get("/v1/payments?pageSize=1&orderId=", &client.token).await.status, 200);
}

/// Callers without a valid token, or beyond their limit, are refused whatever the body is, and before it arrives.
#[tokio::test]
async fn no_body_is_read_from_a_client_that_may_not_call() {
    let edge = Edge::start(&["--souk-limit-account-count=2", "--souk-limit-account-window=1h"]).await;
    for body in ["{", r#"{"validateonly": true}"#, r#"{"items": "none"}"#] {
        let response = edge.call(Method::POST, "/v1/orders", &[], Some(body.into())).await;
        response.assert_refused(401, Code::Unauthenticated, "TOKEN_MISSING");
        for forged in ["garbage", "a.b.c", &sign(&make_key(), json!({}))] {
            let response = edge.post("/v1/orders", forged, body).await;
            response.assert_refused(401, Code::Unauthenticated, "TOKEN_INVALID");
        }
    }
    for authorization in ["", "authorization: Bearer garbage\r\n"] {
        let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000";
        let response = edge.send_raw(&format!("{head}\r\n{authorization}\r\n{{")).await;
        assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    }
    let log_in = || edge.call(Method::POST, "/v1/sessions", &[], Some(r#"{"mail": 1}"#.into()));
    // Without the gateway, Envoy's own limit applies, which is a tenth wider.
    for _ in 0..3 {
        log_in().await.assert_invalid("mail");
    }
    log_in().await.assert_refused(429, Code::ResourceExhausted, "RATE_LIMITED");
}

#[tokio::test]
async fn a_body_may_be_absent_or_come_in_pieces() {
    let client = Client::open(&[]).await;
    let bearer = format!("Bearer {}", client.token);
    let path = format!("/v1/orders/{ID}:cancel");
    for body in [None, Some(reqwest::Body::from(""))] {
        let response = client.edge.call(Method::POST, &path, &[("authorization", &bearer)], body).await;
        assert_eq!(
            response.json()["details"][0]["domain"],
            "souk.order",
            "the service says what is missing: {response:?}"
        );
    }
    let send_by_byte = async |body: &str| {
        let pieces: String = body.chars().map(|piece| format!("1\r\n{piece}\r\n")).collect();
        let head = "POST /v1/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked";
        client.edge.send_raw(&format!("{head}\r\nauthorization: {bearer}\r\n\r\n{pieces}0\r\n\r\n")).await
    };
    let response = send_by_byte(&order_with("")).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let response = send_by_byte(&order_with(r#", "validateonly": true"#)).await;
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains(r#""field":"validateonly""#), "{response}");
    assert_eq!(client.edge.upstream.calls("CreateOrder").len(), 1);
    // With trailers the last chunk is not known, unless the length was sent before.
    let send_with_trailers = async |body: String, length: Option<usize>| {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-end"), HeaderValue::from_static("1"))]);
        let mut request = http::Request::post("/v1/orders").header("authorization", &bearer);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        // `map_frame` hides the length, which the client would send otherwise.
        let body = Full::new(Bytes::from(body)).map_frame(|frame| frame).with_trailers(async { Some(Ok(trailers)) });
        let mut channel = client.edge.channel();
        poll_fn(|context| GrpcService::poll_ready(&mut channel, context)).await.expect("Envoy listens");
        let request = request.body(Body::new(body)).expect("a request");
        GrpcService::call(&mut channel, request).await.expect("Envoy responds").status().as_u16()
    };
    let (good, bad) = (order_with(""), order_with(r#", "validateonly": true"#));
    assert_eq!(send_with_trailers(good.clone(), None).await, 400);
    assert_eq!(send_with_trailers(bad.clone(), None).await, 400);
    assert_eq!(send_with_trailers(bad.clone(), Some(bad.len())).await, 400);
    assert_eq!(client.edge.upstream.calls("CreateOrder").len(), 1);
    assert_eq!(send_with_trailers(good.clone(), Some(good.len())).await, 200);
}

/// A body of many packets arrives whole.
#[tokio::test]
async fn a_long_body_is_read_as_one() {
    let client = Client::open(&[]).await;
    let lines = |last: &str| {
        let items = vec![format!(r#"{{"productId": "{ID}", "quantity": 1}}"#); 100].join(", ");
        let blank = " ".repeat(500_000);
        format!(r#"{{"items": [{items}],{blank} "paymentMethod": "pm_card_visa"{last}}}"#)
    };
    for last in [r#", "validateonly": true"#, r#", "validateOnly": 1"#, ", "] {
        client.order(&lines(last)).await.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    }
    client.order(&lines(r#", "validateonly": true"#)).await.assert_invalid("validateonly");
    client.assert_untouched();
    assert_eq!(client.order(&lines("")).await.status, 200);
}

/// Each path has one spelling; others that the transcoder would accept get 404 if they have a body.
#[tokio::test]
async fn no_other_spelling_of_a_path_gets_past() {
    let client = Client::open(&[]).await;
    let odd = r#"{"amount": 1, "reason": 1}"#;
    for path in [
        format!("/v1/payments/{ID}/:refund"),
        format!("/v1/payments/{ID}/refund"),
        format!("/v1/payments/{ID}:refund/"),
        format!("//v1/payments//{ID}:refund"),
        format!("/v1/./payments/{ID}:refund"),
        format!("/v1/x/../payments/{ID}:refund"),
        format!("/%76%31/%70ayments/{ID}:refund"),
        format!("/v1/payments/{ID}%3Arefund"),
        format!("/v1/payments/{ID}:%72efund"),
        format!("/v1/payments/{ID}:x:refund"),
        format!("/v1/payments/{ID}:refund;x=1"),
        format!("/v1/payments/{ID}:REFUND"),
        "/souk.payment.v1.PaymentService/RefundPayment".to_owned(),
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let response = client.send(method.clone(), &path, odd).await;
            assert!([400, 404].contains(&response.status), "{method} {path}: {response:?}");
        }
    }
    client.assert_untouched();
}

/// A mistake in our own program must not let a request pass unread.
#[tokio::test]
async fn a_mistake_in_the_program_refuses_the_request() {
    let begin = "local function find_binding(bindings, path)";
    let edge = Edge::start_changed(|yaml| {
        assert_eq!(yaml.matches(begin).count(), 1, "the function to break");
        yaml.replace(begin, &format!("{begin} error(\"a mistake\")"))
    })
    .await;
    let bearer = format!("Bearer {}", edge.token());
    let headers = [("authorization", bearer.as_str())];
    for (method, path, body) in [
        (Method::GET, "/v1/orders?pageSize=1", None),
        (Method::HEAD, "/v1/orders?pageSize=1", None),
        (Method::HEAD, "/v1/users/me", None),
        (Method::POST, "/v1/orders", Some("{}")),
    ] {
        let response = edge.call(method.clone(), path, &headers, body.map(Into::into)).await;
        assert_eq!(response.status, 500, "{method} {path}: {response:?}");
    }
    assert_eq!(edge.get("/v1/users/me", &edge.token()).await.status, 200, "it is not for a GET without a query");
    assert!(edge.upstream.calls("ListOrders").is_empty() && edge.upstream.calls("CreateOrder").is_empty());
    edge.find_in_log("a mistake").await;
}
