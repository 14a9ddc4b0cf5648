//! Adds a reason to errors that tonic itself returns, which have only a code and a text.

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::rpc::error::Refusal;

/// Leaves successes, and errors with details, as they are.
pub(crate) fn explain(response: Response<Body>, domain: &str) -> Response<Body> {
    let status = Status::from_header_map(response.headers());
    let Some(status) = status.filter(|status| status.code() != Code::Ok && status.details().is_empty()) else {
        return response;
    };
    let refusal = match status.code() {
        Code::Unimplemented if response.headers().contains_key("grpc-accept-encoding") => {
            Refusal::new(Code::Unimplemented, "ENCODING_UNSUPPORTED", status.message())
        }
        Code::Unimplemented => Refusal::new(Code::Unimplemented, "METHOD_NOT_FOUND", "there is no such method"),
        // A health check of an unknown service.
        Code::NotFound => Refusal::new(Code::NotFound, "SERVICE_NOT_FOUND", status.message()),
        // Malformed frames, and messages that are too large or do not decode.
        Code::Internal | Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument => {
            Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", status.message())
        }
        code => Refusal::new(code, "INTERNAL", status.message()),
    };
    let (mut head, body) = response.into_parts();
    let explained = refusal.into_status(domain).into_http::<Body>();
    head.headers.extend(explained.headers().clone());
    Response::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn every_error_has_a_reason() {
        for (given, code, reason) in [
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_NOT_FOUND"),
            (Status::not_found("service not registered"), Code::NotFound, "SERVICE_NOT_FOUND"),
            (Status::internal("protocol error"), Code::InvalidArgument, "REQUEST_INVALID"),
            (Status::out_of_range("too large"), Code::InvalidArgument, "REQUEST_INVALID"),
            (Status::unknown("?"), Code::Unknown, "INTERNAL"),
        ] {
            let status = Status::from_header_map(explain(given.into_http(), "souk.test").headers()).expect("a status");
            let info = status.get_details_error_info().expect("it says why");
            assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "souk.test"));
        }
        let mut unsupported: Response<Body> = Status::unimplemented("zstd").into_http();
        unsupported.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        let explained = explain(unsupported, "souk.test");
        let status = Status::from_header_map(explained.headers()).expect("a status");
        assert_eq!(status.get_details_error_info().expect("it says why").reason, "ENCODING_UNSUPPORTED");
        assert_eq!(explained.headers()["grpc-accept-encoding"], "identity", "it still says what is taken");
    }

    #[test]
    fn an_error_with_details_stays_as_it_is() {
        let ours = Refusal::new(Code::Aborted, "ETAG_MISMATCH", "stale").into_status("souk.test").into_http();
        let before = format!("{:?}", Response::headers(&ours));
        assert_eq!(format!("{:?}", explain(ours, "souk.other").headers()), before);
        assert!(explain(Response::new(Body::empty()), "souk.test").headers().is_empty());
    }
}
