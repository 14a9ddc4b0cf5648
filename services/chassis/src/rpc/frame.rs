//! The frame of a unary call's message: a flag for compression, four bytes of length, and the message. It is read here and not
//! by tonic, whose errors have no reason; so every RPC accepts gzip.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;

use crate::rpc::error::{Error, Unexpected};

/// The longest message in bytes, compressed or not. The edge allows 1 MiB.
const MAX_REQUEST: usize = 4 << 20;
/// Shorter responses are not compressed.
const MIN_COMPRESSED: usize = 1 << 10;

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The frame of the uncompressed message.
pub(crate) async fn receive(headers: &mut HeaderMap, body: Body, until: Instant) -> Result<Bytes, Error> {
    let gzipped = match headers.remove(ENCODING).as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(Error::EncodingUnsupported),
    };
    let body = timeout_at(until, Limited::new(body, MAX_REQUEST).collect()).await;
    let body = body.map_err(|_| Error::Malformed("it did not arrive in time"))?;
    let body = body.map_err(|_| Error::Malformed("it is too large or incomplete"))?.to_bytes();
    let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<5>() else {
        return Err(Error::Malformed("it has no message"));
    };
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return Err(Error::Malformed("its message has another length than its frame says"));
    }
    match (flag, gzipped) {
        (0, _) => Ok(body),
        (1, true) => frame(0, &inflate(message)?),
        (1, false) => Err(Error::Malformed("its message is compressed, and grpc-encoding does not say how")),
        _ => Err(Error::Malformed("its message begins with neither 0 nor 1")),
    }
}

/// Stops at the longest message, as a few kilobytes may inflate to gigabytes.
fn inflate(message: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut inflated, most) = (Vec::new(), MAX_REQUEST as u64 + 1);
    let read = GzDecoder::new(message).take(most).read_to_end(&mut inflated);
    read.map_err(|_| Error::Malformed("its message is not gzip"))?;
    if inflated.len() > MAX_REQUEST {
        return Err(Error::Malformed("its message is too large once it is inflated"));
    }
    Ok(inflated)
}

fn frame(flag: u8, message: &[u8]) -> Result<Bytes, Error> {
    let length = u32::try_from(message.len()).map_err(|_| Error::Malformed("its message is too large"))?;
    Ok([&[flag], &length.to_be_bytes()[..], message].concat().into())
}

/// Whether the caller accepts gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|encoding| encoding.trim() == "gzip")
}

/// Compresses a response if it is long enough.
pub(crate) async fn compress(response: Response<Body>) -> Result<Response<Body>, Error> {
    // An error has no message.
    if response.headers().contains_key(Status::GRPC_STATUS) {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let broken = |error: String| Unexpected::Broken(format!("a response was not compressed: {error}"));
    let body = body.collect().await.map_err(|error| broken(error.to_string()))?;
    let trailers = body.trailers().cloned();
    let mut body = body.to_bytes();
    if let Some((_, message)) = body.split_first_chunk::<5>().filter(|(_, message)| message.len() >= MIN_COMPRESSED) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let gzipped = encoder.write_all(message).and_then(|()| encoder.finish());
        body = frame(1, &gzipped.map_err(|error| broken(error.to_string()))?)?;
        head.headers.insert(ENCODING, HeaderValue::from_static("gzip"));
    }
    let body = Full::new(body).with_trailers(std::future::ready(trailers.map(Ok)));
    Ok(Response::from_parts(head, Body::new(body)))
}

/// The response of a call that failed.
pub(crate) fn refuse(error: Error, domain: &str) -> Response<Body> {
    let names_encodings = matches!(error, Error::EncodingUnsupported);
    let mut response = error.into_status(domain).into_http();
    if names_encodings {
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(message).expect("into memory");
        encoder.finish().expect("into memory")
    }

    async fn read(encoding: Option<&'static str>, body: Bytes) -> Result<Bytes, Error> {
        let mut headers = HeaderMap::new();
        headers.extend(encoding.map(|it| (http::HeaderName::from_static(ENCODING), HeaderValue::from_static(it))));
        let read = receive(&mut headers, Body::new(Full::new(body)), Instant::now() + Duration::from_secs(60)).await;
        assert!(headers.is_empty(), "what follows sees a message that is not compressed");
        read
    }

    #[tokio::test]
    async fn a_message_may_be_gzipped_where_its_headers_say_so() {
        let plain = frame(0, b"hello").expect("short");
        let gzipped = frame(1, &gzip(b"hello")).expect("short");
        for (encoding, body) in
            [(None, &plain), (Some("identity"), &plain), (Some("gzip"), &plain), (Some("gzip"), &gzipped)]
        {
            assert_eq!(read(encoding, body.clone()).await.expect("it reads"), plain, "{encoding:?}");
        }
        for (encoding, body) in
            [(None, &gzipped), (Some("identity"), &gzipped), (Some("gzip"), &frame(1, b"hello").expect("short"))]
        {
            let refused = read(encoding, body.clone()).await;
            assert!(matches!(refused, Err(Error::Malformed(_))), "{encoding:?}: {refused:?}");
        }
        assert!(matches!(read(Some("zstd"), plain).await, Err(Error::EncodingUnsupported)));
    }

    #[tokio::test]
    async fn inflating_stops_at_the_longest_message() {
        let most = frame(1, &gzip(&vec![0; MAX_REQUEST])).expect("short");
        assert_eq!(read(Some("gzip"), most).await.expect("just so").len(), 5 + MAX_REQUEST);
        let bomb = gzip(&vec![0; 64 << 20]);
        // Its end is missing: inflating all of it would report that instead of its size.
        let bomb = frame(1, &bomb[..bomb.len() - 100]).expect("short");
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let refused = read(Some("gzip"), bomb).await.expect_err("64 MiB");
        assert!(matches!(refused, Error::Malformed("its message is too large once it is inflated")), "{refused:?}");
    }

    #[tokio::test]
    async fn long_responses_are_gzipped_and_keep_their_trailers() {
        let encode = |message: &[u8]| {
            let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
            let body = Full::new(frame(0, message).expect("short"));
            Response::new(Body::new(body.with_trailers(std::future::ready(Some(Ok(trailers))))))
        };
        for (length, gzipped) in [(10, false), (100_000, true)] {
            let message = vec![b'a'; length];
            let response = compress(encode(&message)).await.expect("compressed");
            assert_eq!(response.headers().contains_key(ENCODING), gzipped);
            let body = response.into_body().collect().await.expect("a body");
            assert_eq!(
                body.trailers().and_then(|it| it.get(Status::GRPC_STATUS)),
                Some(&HeaderValue::from_static("0"))
            );
            let body = body.to_bytes();
            assert!(body.len() <= 1_000, "{}", body.len());
            assert_eq!(body[0], u8::from(gzipped));
            let text = if gzipped { inflate(&body[5..]).expect("gzip") } else { body[5..].to_vec() };
            assert_eq!(text, message);
        }
        assert!(takes_gzip(&HeaderMap::from_iter([(
            http::HeaderName::from_static(ACCEPT_ENCODING),
            HeaderValue::from_static("identity, deflate, gzip")
        )])));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
