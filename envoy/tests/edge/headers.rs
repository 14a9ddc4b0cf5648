//! Headers that clients forge, and CORS.

use contracts::souk::user::v1::GetUserRequest;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use reqwest::Method;
use tonic::metadata::{MetadataKey, MetadataMap};

use crate::harness::{Edge, SHOP, signed};

const FORGED: [(&str, &str); 15] = [
    ("x-souk-service", "forged"),
    ("x-envoy-original-path", "/forged"),
    ("x-envoy-internal", "true"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-external-address", "6.6.6.6"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-host", "forged"),
    ("forwarded", "for=6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("x-request-id", "11111111-1111-4111-8111-111111111111"),
    ("x-client-trace-id", "forged"),
    ("traceparent", "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"),
    ("baggage", "forged=1"),
    ("b3", "1"),
];

#[track_caller]
fn assert_none_forged(arrived: &MetadataMap) {
    for (name, value) in FORGED {
        let values: Vec<_> = arrived.get_all(name).iter().collect();
        assert!(values.iter().all(|arrived| *arrived != value), "{name}: {values:?}");
    }
}

#[tokio::test]
async fn what_a_client_claims_about_itself_is_removed() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.token());
    let headers = [FORGED.as_slice(), &[("authorization", &bearer)]].concat();
    assert_eq!(edge.call(Method::GET, "/v1/users/me", &headers, None).await.status, 200);

    let mut request = signed(&edge.token(), GetUserRequest { user_id: "me".to_owned() });
    for (name, value) in FORGED {
        let name = MetadataKey::from_bytes(name.as_bytes()).expect("a name");
        request.metadata_mut().insert(name, value.parse().expect("visible text"));
    }
    UserServiceClient::new(edge.channel()).get_user(request).await.expect("the token is good");

    let calls = edge.upstream.calls("GetUser");
    assert_eq!(calls.len(), 2);
    calls.iter().for_each(assert_none_forged);
    assert!(calls.iter().all(|call| call.get("x-request-id").is_some()), "Envoy gives each an id: {calls:?}");
}

#[tokio::test]
async fn odd_paths_are_refused_or_read_as_one() {
    let edge = Edge::start(&[]).await;
    for path in ["/v1/users/a%2Fb", "/v1/users/a%5Cb"] {
        assert_eq!(edge.get(path, &edge.token()).await.status, 400, "{path}");
    }
    assert!(edge.upstream.calls("GetUser").is_empty(), "no call reached the service");
    assert_eq!(edge.get("//v1//users/me", &edge.token()).await.status, 200);
}

/// gRPC allows underscores in metadata, but another proxy could take `user_id` for `user-id`.
#[tokio::test]
async fn headers_with_an_underscore_are_dropped() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.token());
    let underscore = [("authorization", bearer.as_str()), ("user_id", "forged"), ("x_souk_service", "forged")];
    assert_eq!(edge.call(Method::GET, "/v1/users/me", &underscore, None).await.status, 200);
    let mut request = signed(&edge.token(), GetUserRequest { user_id: "me".to_owned() });
    request.metadata_mut().insert("user_id", "forged".parse().expect("visible text"));
    UserServiceClient::new(edge.channel()).get_user(request).await.expect("the call is good");
    let calls = edge.upstream.calls("GetUser");
    assert_eq!(calls.len(), 2);
    for name in ["user_id", "x_souk_service", "user-id"] {
        assert!(calls.iter().all(|call| call.get(name).is_none()), "{name}: {calls:?}");
    }
}

#[tokio::test]
async fn only_known_origins_may_ask_from_a_browser() {
    let edge = Edge::start(&[]).await;
    let ask = async |origin: &str, path: &str, wanted: &str| {
        let headers =
            [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", wanted)];
        edge.call(Method::OPTIONS, path, &headers, None).await
    };
    for (path, wanted) in
        [("/v1/orders", "authorization,idempotency-key"), ("/souk.order.v1.OrderService/CreateOrder", "x-grpc-web")]
    {
        let response = ask(SHOP, path, wanted).await;
        assert_eq!(
            (response.status, response.header("access-control-allow-origin")),
            (200, Some(SHOP)),
            "{response:?}"
        );
        let allowed = response.header("access-control-allow-headers").unwrap_or_default();
        assert!(wanted.split(',').all(|wanted| allowed.contains(wanted)), "{response:?}");
        let response = ask("https://evil.example", path, wanted).await;
        assert_eq!(response.header("access-control-allow-origin"), None, "{response:?}");
    }
    let response = edge.call(Method::GET, "/v1/users/me", &[("origin", SHOP)], None).await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (401, Some(SHOP)), "a page reads it");
}

/// The signature is over the bytes: reformatted JSON would not match it.
#[tokio::test]
async fn a_webhook_arrives_byte_for_byte_with_its_signature() {
    let edge = Edge::start(&[]).await;
    let body = "{ \"b\" : 1.0,\r\n\t\"a\":\"\\u00e9\", \"a\": \"\u{e9}\" }\n\n";
    for kind in ["application/json; charset=utf-8", "application/octet-stream"] {
        let headers = [("content-type", kind), ("stripe-signature", "t=1,v1=ab,v1=cd")];
        let response = edge.call(Method::POST, "/v1/payments/webhooks/stripe", &headers, Some(body.into())).await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    let calls = edge.upstream.calls("ReceiveWebhook");
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(call.get("stripe-signature").expect("it is passed on"), "t=1,v1=ab,v1=cd");
        let arrived = call.get_bin("body-bin").expect("it was noted").to_bytes().expect("bytes");
        assert_eq!(arrived, body.as_bytes());
    }
}
