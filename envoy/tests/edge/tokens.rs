//! Access tokens.

use std::time::{Duration, Instant};

use contracts::souk::payment::v1::GetLedgerRequest;
use contracts::souk::payment::v1::payment_service_client::PaymentServiceClient;
use contracts::souk::user::v1::GetUserRequest;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::json;
use tonic::{Code, Request};

use crate::harness::{Edge, assert_refused, claims, make_key, now, sign, signed};

const ME: &str = "/v1/users/me";
const GET_USER: &str = "/souk.user.v1.UserService/GetUser";

fn me() -> GetUserRequest {
    GetUserRequest { user_id: "me".to_owned() }
}

#[tokio::test]
async fn a_good_token_passes_and_so_does_what_the_services_need() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.token());
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "one")];
    let response = edge.call(Method::GET, ME, &headers, None).await;
    assert_eq!((response.status, &response.json()["user"]["userId"]), (200, &json!("me")), "{response:?}");

    let mut request = signed(&edge.token(), me());
    request.set_timeout(std::time::Duration::from_secs(3));
    let response = UserServiceClient::new(edge.channel()).get_user(request).await.expect("the token is good");
    assert_eq!(response.into_inner().user.expect("a user").user_id, "me");

    let calls = edge.upstream.calls("GetUser");
    let header = |call: usize, name: &str| calls[call].get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header(0, "authorization"), Some(bearer.as_str()), "services verify it again");
    assert_eq!(header(0, "idempotency-key"), Some("one"));
    assert!(header(1, "grpc-timeout").is_some(), "the caller's deadline arrives: {calls:?}");
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused_over_rest_and_grpc_alike() {
    let edge = Edge::start(&[]).await;
    let hmac =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(b"x"));
    let unsigned = edge.token();
    let (_, payload) = unsigned.rsplit_once('.').and_then(|(head, _)| head.split_once('.')).expect("three parts");
    for (token, reason) in [
        (edge.sign(json!({"exp": now() - 60})), "TOKEN_EXPIRED"),
        (edge.sign(json!({"exp": null})), "TOKEN_INVALID"),
        (edge.sign(json!({"aud": "another"})), "TOKEN_INVALID"),
        (edge.sign(json!({"iss": "https://another.example"})), "TOKEN_INVALID"),
        (sign(&make_key(), json!({})), "TOKEN_INVALID"),
        (hmac.expect("claims can be signed"), "TOKEN_INVALID"),
        // {"alg":"none"}
        (format!("eyJhbGciOiJub25lIn0.{payload}."), "TOKEN_INVALID"),
        ("garbage".to_owned(), "TOKEN_INVALID"),
    ] {
        let response = edge.get(ME, &token).await;
        response.assert_refused(401, Code::Unauthenticated, reason);
        assert!(response.header("www-authenticate").is_some_and(|it| it.contains("invalid_token")), "{response:?}");
        let response = UserServiceClient::new(edge.channel()).get_user(signed(&token, me())).await;
        let challenge = response.as_ref().err().and_then(|status| status.metadata().get("www-authenticate")).cloned();
        assert!(challenge.is_some_and(|it| it == "Bearer realm=\"souk\", error=\"invalid_token\""), "{response:?}");
        assert_refused(response, Code::Unauthenticated, reason);
    }
    for other in [vec![], vec![("authorization", "Basic dTpw")]] {
        let response = edge.call(Method::GET, ME, &other, None).await;
        response.assert_refused(401, Code::Unauthenticated, "TOKEN_MISSING");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"souk\""));
    }
    assert_refused(UserServiceClient::new(edge.channel()).get_user(me()).await, Code::Unauthenticated, "TOKEN_MISSING");
    assert!(edge.upstream.calls("GetUser").is_empty(), "no call reached the service");
}

/// RFC 9110, 15.5.2.
#[tokio::test]
async fn a_401_of_a_service_has_a_challenge() {
    let edge = Edge::start(&[]).await;
    let payment_id = uuid::Uuid::now_v7().to_string();
    let response = edge.get(&format!("/v1/payments/{payment_id}/ledger"), &edge.token()).await;
    assert_eq!(
        (response.status, &response.json()["details"][0]["domain"]),
        (401, &json!("souk.payment")),
        "{response:?}"
    );
    let challenge = "Bearer realm=\"souk\", error=\"invalid_token\"";
    assert_eq!(response.header("www-authenticate"), Some(challenge));
    let ledger = signed(&edge.token(), GetLedgerRequest { payment_id });
    let status = PaymentServiceClient::new(edge.channel()).get_ledger(ledger).await.expect_err("it is refused");
    assert_eq!(status.metadata().get("www-authenticate").expect("it says so"), challenge);
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case_and_any_spaces_follow() {
    let edge = Edge::start(&[]).await;
    let token = edge.token();
    for scheme in ["Bearer ", "bearer ", "BEARER ", "bEaReR   ", "Bearer   "] {
        let response = edge.call(Method::GET, ME, &[("authorization", &format!("{scheme}{token}"))], None).await;
        assert_eq!(response.status, 200, "{scheme}: {response:?}");
        let mut request = Request::new(me());
        let credentials = format!("{scheme}{token}").parse().expect("a token is visible text");
        request.metadata_mut().insert("authorization", credentials);
        UserServiceClient::new(edge.channel()).get_user(request).await.expect(scheme);
    }
    for call in edge.upstream.calls("GetUser") {
        let arrived = call.get("authorization").and_then(|it| it.to_str().ok()).expect("services verify it again");
        assert!(arrived.starts_with("Bearer ") && arrived.ends_with(&token), "{arrived}");
    }
    for scheme in ["bearer", "Bearer", "Token "] {
        let response = edge.call(Method::GET, ME, &[("authorization", &format!("{scheme}{token}"))], None).await;
        response.assert_refused(401, Code::Unauthenticated, "TOKEN_MISSING");
    }
    let response = edge.call(Method::GET, ME, &[("authorization", "bearer garbage")], None).await;
    response.assert_refused(401, Code::Unauthenticated, "TOKEN_INVALID");
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_and_not_logged() {
    let edge = Edge::start(&[]).await;
    let token = edge.token();
    let path = format!("{ME}?access_token={token}");
    edge.call(Method::GET, &path, &[], None).await.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
    let path = format!("{GET_USER}?access_token={token}");
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let response = edge.call(Method::POST, &path, &grpc, None).await;
    assert_eq!(response.header("grpc-status"), Some("16"), "{response:?}");
    assert!(edge.upstream.calls("GetUser").is_empty(), "no call reached the service");

    edge.call(Method::GET, "/last", &[], None).await;
    edge.find_in_log("\"/last\"").await;
    assert!(!edge.read_log().contains(&token), "{}", edge.read_log());
}

#[tokio::test]
async fn spans_have_the_rpc_and_no_query() {
    let collector = Edge::start(&[]).await;
    let otlp = format!("--edge-otlp-endpoint={}", collector.upstream.grpc);
    let edge = Edge::start(&[&otlp, "--souk-limit-read-burst=100000"]).await;
    let token = edge.token();
    // One request in a hundred is traced, and five traces are sent together.
    let traced = async || {
        edge.get(&format!("{ME}?access_token={token}"), &token).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        edge.call(Method::POST, &format!("{GET_USER}?access_token={token}"), &grpc, None).await;
        edge.get(ME, &token).await;
        let traced = collector.upstream.traced();
        // One of each: refused by the transcoder, refused for its token, and served.
        let seen = [ME, "An access token is required", GET_USER].iter().all(|it| traced.contains(it));
        seen.then_some(traced)
    };
    let until = Instant::now() + Duration::from_secs(60);
    let traced = loop {
        match traced().await {
            Some(traced) => break traced,
            None => assert!(Instant::now() < until, "some are never traced: {:?}", collector.upstream.traced()),
        }
    };
    assert!(!traced.contains("access_token") && !traced.contains(&token), "{traced:?}");
}

#[tokio::test]
async fn without_keys_tokens_are_refused_and_public_calls_pass() {
    let edge = Edge::start_without_keys().await;
    edge.get(ME, &edge.token()).await.assert_refused(503, Code::Unavailable, "KEYS_UNAVAILABLE");
    let response = UserServiceClient::new(edge.channel()).get_user(signed(&edge.token(), me())).await;
    assert_refused(response, Code::Unavailable, "KEYS_UNAVAILABLE");
    let credentials = json!({"email": "a@example.com", "password": "a long enough one"});
    let response = edge.call(Method::POST, "/v1/sessions", &[], Some(credentials.to_string().into())).await;
    assert_eq!(response.status, 200, "{response:?}");
}
