//! The edge's errors, over REST and gRPC.

use contracts::souk::order::v1::order_service_client::OrderServiceClient;
use contracts::souk::order::v1::{CreateOrderRequest, FulfillOrderRequest, GetOrderRequest};
use contracts::souk::payment::v1::GetPaymentRequest;
use contracts::souk::payment::v1::payment_service_client::PaymentServiceClient;
use contracts::souk::user::v1::GetUserRequest;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use reqwest::Method;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::{Edge, NOWHERE, assert_refused, find_reason, signed};

#[tokio::test]
async fn what_is_not_in_the_contracts_is_not_found() {
    let edge = Edge::start(&[]).await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v1/nothing"),
        (Method::PUT, "/v1/users/me"),
        (Method::POST, "/souk.order.v1.OrderService/BatchGetOrderStates"),
        (Method::POST, "/souk.order.v1.OrderService/CreateOrder"),
    ] {
        let bearer = format!("Bearer {}", edge.token());
        let response = edge.call(method, path, &[("authorization", &bearer)], Some("{}".into())).await;
        response.assert_refused(404, Code::NotFound, "METHOD_NOT_FOUND");
    }
}

#[tokio::test]
async fn what_does_not_fit_the_contracts_is_invalid() {
    let edge = Edge::start(&[]).await;
    let token = edge.token();
    for response in [
        edge.post("/v1/orders", &token, "{\"items\": [").await,
        edge.post("/v1/orders", &token, "{\"items\": 7}").await,
        edge.get("/v1/orders?unknown=1", &token).await,
        edge.get("/v1/orders?pageSize=many", &token).await,
    ] {
        response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    }
    // Services check the values of fields; their errors arrive whole.
    let response = edge.post("/v1/orders", &token, "{}").await;
    let details = response.json()["details"].clone();
    assert_eq!((response.status, &details[0]["domain"]), (400, &json!("souk.order")), "{response:?}");
    assert!(edge.upstream.calls("CreateOrder").is_empty(), "no call reached a handler");
}

#[tokio::test]
async fn bodies_have_a_maximum_length() {
    let edge = Edge::start(&["--edge-max-body=100000"]).await;
    let long = "x".repeat(200_000);
    let body = json!({"paymentMethod": long}).to_string();
    let response = edge.post("/v1/orders", &edge.token(), body).await;
    response.assert_refused(413, Code::ResourceExhausted, "BODY_TOO_LARGE");
    assert!(response.body.contains("100000 bytes"), "it says how long one may be: {response:?}");
    let order = CreateOrderRequest { payment_method: long, ..CreateOrderRequest::default() };
    let response = OrderServiceClient::new(edge.channel()).create_order(signed(&edge.token(), order)).await;
    assert_refused(response, Code::ResourceExhausted, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn headers_have_a_maximum_length_that_the_edge_enforces() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.token());
    let ask = async |count: usize, length: usize| {
        let names: Vec<_> = (0..count).map(|at| format!("x-{at:02}")).collect();
        let value = "x".repeat(length);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(names.iter().map(|name| (name.as_str(), value.as_str())));
        edge.call(Method::GET, "/v1/users/me", &headers, None).await
    };
    for (count, length) in [(1, 11_000), (90, 120)] {
        let response = ask(count, length).await;
        assert_eq!(response.status, 200, "{count} of {length}: {response:?}");
    }
    for (count, length) in [(1, 13_000), (90, 150), (120, 1)] {
        ask(count, length).await.assert_refused(431, Code::ResourceExhausted, "HEADERS_TOO_LARGE");
    }
    let grpc = async |length: usize| {
        let mut request = signed(&edge.token(), GetUserRequest { user_id: "me".to_owned() });
        request.metadata_mut().insert("x-long", "x".repeat(length).parse().expect("visible text"));
        UserServiceClient::new(edge.channel()).get_user(request).await
    };
    grpc(11_000).await.expect("it fits");
    // Over HTTP/2, Envoy can only reset the stream.
    assert_eq!(grpc(13_000).await.expect_err("it does not").code(), Code::Internal);
    assert_eq!(edge.upstream.calls("GetUser").len(), 3, "only calls with short headers reached the service");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_not_waited_for() {
    let edge = Edge::start(&["--edge-timeout=300ms"]).await;
    let order_id = Uuid::now_v7().to_string();
    let response = edge.get(&format!("/v1/orders/{order_id}"), &edge.token()).await;
    response.assert_refused(504, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let order = signed(&edge.token(), GetOrderRequest { order_id });
    let response = OrderServiceClient::new(edge.channel()).get_order(order).await;
    assert_refused(response, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    let edge = Edge::start(&[&format!("--edge-payment-endpoints={NOWHERE}")]).await;
    let payment_id = Uuid::now_v7().to_string();
    let response = edge.get(&format!("/v1/payments/{payment_id}"), &edge.token()).await;
    response.assert_refused(503, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    let payment = signed(&edge.token(), GetPaymentRequest { payment_id });
    let response = PaymentServiceClient::new(edge.channel()).get_payment(payment).await;
    assert_refused(response, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn what_a_service_refuses_keeps_its_details() {
    let edge = Edge::start(&[]).await;
    let order_id = Uuid::now_v7().to_string();
    let body = json!({"carrier": "DHL", "trackingNumber": "1"}).to_string();
    let response = edge.post(&format!("/v1/orders/{order_id}:fulfill"), &edge.token(), body).await;
    let details = response.json()["details"].clone();
    assert_eq!((response.status, response.json()["code"].as_i64()), (400, Some(Code::FailedPrecondition as i64)));
    let of = |kind: &str| {
        let is = |detail: &&serde_json::Value| detail["@type"].as_str().is_some_and(|it| it.ends_with(kind));
        details.as_array().expect("a list").iter().find(is).cloned().unwrap_or_else(|| panic!("{kind}: {response:?}"))
    };
    assert_eq!(
        (&of("ErrorInfo")["reason"], &of("ErrorInfo")["metadata"]["a"]),
        (&json!("PAYMENT_NOT_CAPTURED"), &json!("b"))
    );
    assert_eq!(of("PreconditionFailure")["violations"][0]["subject"], "order");
    assert_eq!(of("RetryInfo")["retryDelay"], "2s");

    let (carrier, tracking_number) = ("DHL".to_owned(), "1".to_owned());
    let order = FulfillOrderRequest { order_id, carrier, tracking_number, ..Default::default() };
    let refused = OrderServiceClient::new(edge.channel()).fulfill_order(signed(&edge.token(), order)).await;
    let refused = refused.expect_err("the service refuses");
    assert_eq!(find_reason(&refused), "PAYMENT_NOT_CAPTURED@souk.order");
    assert!(refused.get_details_precondition_failure().is_some(), "{refused:?}");
}

#[tokio::test]
async fn grpc_web_gets_the_same_errors() {
    let edge = Edge::start(&[]).await;
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let path = "/souk.user.v1.UserService/GetUser";
    let response = edge.call(Method::POST, path, &headers, Some(vec![0_u8; 5].into())).await;
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("16")), "{response:?}");
    assert!(response.header("grpc-status-details-bin").is_some(), "{response:?}");
}
