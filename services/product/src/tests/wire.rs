//! Compressed messages, and the responses to calls that reach no handler.

use std::io::{Read, Write};

use bytes::Bytes;
use contracts::souk::product::v1::*;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use prost::Message;
use sqlx::PgPool;
use testkit::reason;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tower::ServiceExt;

use super::Fixture;
use super::create::mug;

fn frame(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("short");
    [&[flag], &length.to_be_bytes()[..], message].concat().into()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).expect("into memory");
    encoder.finish().expect("into memory")
}

/// The headers of the response, and its body.
async fn post(
    fixture: &Fixture,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: Bytes,
) -> (HeaderMap, Bytes) {
    let mut request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(Full::new(body))).expect("a request");
    let response = fixture.channel.clone().oneshot(request).await.expect("the pipe is open");
    let (head, body) = response.into_parts();
    (head.headers, body.collect().await.expect("a body").to_bytes())
}

const LIST: &str = "/souk.product.v1.ProductService/ListProducts";

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_gzipped_message_is_read_and_an_answer_is_gzipped_if_that_is_asked_for(db: PgPool) {
    let fixture = Fixture::open(db).await;
    for sku in ["A", "B", "C"] {
        let description = "Of clay. ".repeat(200);
        fixture.create(Product { description, ..mug(sku, "Mug") }).await.expect("created");
    }
    let ask = ListProductsRequest { page_size: 2, ..Default::default() }.encode_to_vec();
    let (headers, plain) = post(&fixture, LIST, &[("grpc-encoding", "gzip")], frame(1, &gzip(&ask))).await;
    assert!(!headers.contains_key("grpc-encoding"), "the client did not ask for it: {headers:?}");
    let listed = ListProductsResponse::decode(&plain[5..]).expect("a response");
    assert_eq!((plain[0], listed.products.len()), (0, 2));

    let (headers, gzipped) = post(&fixture, LIST, &[("grpc-accept-encoding", "identity,gzip")], frame(0, &ask)).await;
    assert_eq!((headers["grpc-encoding"].as_bytes(), gzipped[0]), (&b"gzip"[..], 1));
    assert!(gzipped.len() < plain.len() / 2, "{} bytes", gzipped.len());
    let mut inflated = Vec::new();
    GzDecoder::new(&gzipped[5..]).read_to_end(&mut inflated).expect("gzip");
    assert_eq!(ListProductsResponse::decode(&*inflated), Ok(listed));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_call_that_reaches_no_handler_is_answered_with_a_reason(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let bomb = frame(1, &gzip(&vec![0; 64 << 20]));
    let unknown_service = [10, 1, b'x'];
    let (gzip, zstd, check) =
        (&[("grpc-encoding", "gzip")][..], &[("grpc-encoding", "zstd")][..], "/grpc.health.v1.Health/Check");
    for (path, headers, body, code, expected) in [
        (LIST, gzip, bomb, Code::InvalidArgument, "REQUEST_INVALID"),
        (LIST, &[], frame(1, b"x"), Code::InvalidArgument, "REQUEST_INVALID"),
        (LIST, zstd, frame(0, b""), Code::Unimplemented, "ENCODING_UNSUPPORTED"),
        ("/souk.product.v1.ProductService/Nothing", &[], frame(0, b""), Code::Unimplemented, "METHOD_NOT_FOUND"),
        ("/grpc.health.v1.Health/Nothing", &[], frame(0, b""), Code::Unimplemented, "METHOD_NOT_FOUND"),
        ("/grpc.nothing.v1.Nothing/Nothing", &[], frame(0, b""), Code::Unimplemented, "METHOD_NOT_FOUND"),
        (check, zstd, frame(0, b""), Code::Unimplemented, "ENCODING_UNSUPPORTED"),
        (check, &[], frame(0, &unknown_service), Code::NotFound, "SERVICE_NOT_FOUND"),
        (check, &[], frame(0, b"\xff"), Code::InvalidArgument, "REQUEST_INVALID"),
        (check, &[], frame(7, b""), Code::InvalidArgument, "REQUEST_INVALID"),
        (check, &[], frame(0, &vec![0; 5 << 20]), Code::InvalidArgument, "REQUEST_INVALID"),
    ] {
        let (headers, _) = post(&fixture, path, headers, body).await;
        let status = Status::from_header_map(&headers).unwrap_or_else(|| panic!("{path}: {headers:?}"));
        assert_eq!((status.code(), reason(&status).split('@').next()), (code, Some(expected)), "{path}: {status:?}");
        let names_encodings = headers.contains_key("grpc-accept-encoding");
        assert_eq!(names_encodings, expected == "ENCODING_UNSUPPORTED", "{path}: {headers:?}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn reflection_describes_health_beside_the_services(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health.Check".to_owned())),
    ];
    let mut client = ServerReflectionClient::new(fixture.channel.clone());
    let responses = client.server_reflection_info(tokio_stream::iter(asked)).await.expect("it needs no token");
    let mut responses = responses.into_inner();
    let mut next = async || responses.message().await.expect("a response").expect("one for each").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = next().await else { panic!("no list") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    names.sort();
    assert_eq!(names, ["grpc.health.v1.Health", "souk.product.v1.ProductService"]);
    let Some(MessageResponse::FileDescriptorResponse(file)) = next().await else { panic!("it is not described") };
    assert!(!file.file_descriptor_proto.is_empty());
}
