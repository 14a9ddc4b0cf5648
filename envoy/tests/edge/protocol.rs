//! HEAD, HTTP/1.0, and deadlines.

use std::time::Duration;

use contracts::souk::user::v1::GetUserRequest;
use contracts::souk::user::v1::user_service_client::UserServiceClient;
use reqwest::Method;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Edge, assert_refused, signed};

const ME: &str = "/v1/users/me";

#[tokio::test]
async fn head_is_get_without_its_body() {
    let edge = Edge::start(&[]).await;
    let bearer = format!("Bearer {}", edge.token());
    let authorized = [("authorization", bearer.as_str())];
    for (path, headers) in [
        (ME, &authorized[..]),
        (ME, &[]),
        ("/v1/users/me?userId=x", &authorized),
        ("/v1/nothing", &[]),
        ("/.well-known/jwks.json", &[]),
    ] {
        let get = edge.call(Method::GET, path, headers, None).await;
        // Twice: the rest of a body would be read as the next response of the connection.
        for _ in 0..2 {
            let head = edge.call(Method::HEAD, path, headers, None).await;
            assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}: {head:?}");
            for name in ["content-type", "content-length", "www-authenticate"] {
                assert_eq!(head.header(name), get.header(name), "{path} {name}: {head:?} {get:?}");
            }
        }
    }
    let response = edge.call(Method::HEAD, "/v1/sessions:refresh", &[], None).await;
    assert_eq!(response.status, 404, "there is no GET: {response:?}");
}

#[tokio::test]
async fn http_1_0_is_served() {
    let edge = Edge::start(&[]).await;
    let token = edge.token();
    // HTTP/1.0 does not require a host header.
    for host in ["", "host: shop.example\r\n"] {
        let response =
            edge.send_raw(&format!("GET {ME} HTTP/1.0\r\n{host}authorization: Bearer {token}\r\n\r\n")).await;
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.0 200 ") && body.contains("\"userId\":\"me\""), "{response}");
        assert!(!head.contains("transfer-encoding"), "which 1.0 does not know: {response}");
    }
    let body = "{\"mail\": 1}";
    let head = format!("POST /v1/sessions HTTP/1.0\r\ncontent-length: {}", body.len());
    let response = edge.send_raw(&format!("{head}\r\n\r\n{body}")).await;
    assert!(response.starts_with("HTTP/1.0 400 ") && response.contains("\"field\":\"mail\""), "{response}");
}

#[tokio::test]
async fn a_deadline_is_bounded_on_both_sides() {
    let edge = Edge::start(&["--edge-timeout=4s"]).await;
    let bearer = format!("Bearer {}", edge.token());
    let bounded = [
        ("1m", "100m"),
        ("0n", "100m"),
        ("99999999n", "100m"),
        ("100m", "100m"),
        ("250m", "250m"),
        ("3S", "3S"),
        ("4000000u", "4000000u"),
        ("5S", "4000m"),
        ("99999999H", "4000m"),
    ];
    for (timeout, _) in bounded {
        let headers = [("authorization", bearer.as_str()), ("grpc-timeout", timeout)];
        let response = edge.call(Method::GET, ME, &headers, None).await;
        assert_eq!(response.status, 200, "{timeout}: {response:?}");
    }
    let arrived = edge.upstream.calls("GetUser");
    let arrived: Vec<_> = arrived.iter().map(|call| call.get("grpc-timeout").and_then(|it| it.to_str().ok())).collect();
    assert_eq!(arrived, bounded.map(|(_, expected)| Some(expected)));

    for odd in ["1", "S", "", "-1S", "1.5S", "123456789m", "5X", "5 S", "5s"] {
        let headers = [("authorization", bearer.as_str()), ("grpc-timeout", odd)];
        let response = edge.call(Method::GET, ME, &headers, None).await;
        response.assert_refused(400, Code::InvalidArgument, "REQUEST_INVALID");
        assert_eq!(response.json()["details"][1]["fieldViolations"][0]["field"], "grpc-timeout", "{response:?}");
    }
    let mut request = signed(&edge.token(), GetUserRequest { user_id: "me".to_owned() });
    request.metadata_mut().insert("grpc-timeout", "5X".parse().expect("visible text"));
    let response = UserServiceClient::new(edge.channel()).get_user(request).await;
    let fields =
        response.as_ref().err().and_then(|status| status.get_details_bad_request()).expect("it names the field");
    assert_eq!(fields.field_violations[0].field, "grpc-timeout");
    assert_refused(response, Code::InvalidArgument, "REQUEST_INVALID");
    assert_eq!(edge.upstream.calls("GetUser").len(), bounded.len(), "none of these calls reached the service");
}

/// Over HTTP/2 the length of a body is that of its frames, and a header that says otherwise is an error.
#[tokio::test]
async fn a_body_of_another_length_than_announced_is_refused() {
    let edge = Edge::start(&[]).await;
    let body = r#"{"requestId": "one", "email": "a@example.com", "password": "a long enough one", "displayName": "A"}"#;
    for (length, is_good) in [(body.len(), true), (body.len() - 1, false), (body.len() + 1, false), (0, false)] {
        let before = edge.upstream.calls("RegisterUser").len();
        let socket = tokio::net::TcpStream::connect(edge.address).await.expect("Envoy listens");
        let (mut client, connection) = h2::client::handshake(socket).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post("http://souk/v1/users").header("content-length", length).body(());
        let (response, mut stream) = client.send_request(request.expect("a request"), false).expect("it is open");
        // Envoy may have reset the stream by then.
        let sent = stream.send_data(body.as_bytes().into(), true);
        let response = tokio::time::timeout(Duration::from_secs(30), response).await.expect("Envoy responds or resets");
        let status = response.as_ref().map(|response| response.status().as_u16());
        if is_good {
            sent.expect("it is open");
            assert_eq!(status.ok(), Some(200));
            assert_eq!(edge.upstream.calls("RegisterUser").len(), before + 1);
        } else {
            assert!(status.is_err() || status.is_ok_and(|status| status == 400), "{length}: {response:?}");
            assert_eq!(edge.upstream.calls("RegisterUser").len(), before, "{length}");
        }
    }
}
