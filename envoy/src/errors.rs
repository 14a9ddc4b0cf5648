//! The errors that the edge itself returns, in the format of the services' errors: a table of reasons, and for each of them
//! two mappers of Envoy's local replies, one for gRPC and one for REST.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "souk.edge";

struct Reason {
    name: &'static str,
    /// A CEL expression over the local reply: whether it has this reason.
    when: &'static str,
    /// The HTTP status; `None` keeps Envoy's.
    http: Option<u16>,
    /// The code over gRPC, and over REST.
    codes: (Code, Code),
    /// `None` keeps the text of the filter that refused. `MAX_BODY` is replaced by the limit.
    message: Option<&'static str>,
    field: Field,
}

/// The invalid field, for a `BadRequest` detail.
enum Field {
    None,
    Named(&'static str),
    /// One of our Lua filters put it into the request's metadata. REST only: those filters skip gRPC.
    InMetadata,
}

/// The first entry that matches applies.
const TABLE: [Reason; 15] = [
    Reason {
        name: "REQUEST_INVALID",
        when: "response.code_details == 'lua_response' && response.code == 400 && 'souk.edge' in metadata.filter_metadata && 'header' in metadata.filter_metadata['souk.edge']",
        http: Some(400),
        codes: (Code::InvalidArgument, Code::InvalidArgument),
        message: Some("grpc-timeout must be one to eight digits and a unit: H, M, S, m, u or n."),
        field: Field::Named("grpc-timeout"),
    },
    Reason {
        name: "REQUEST_INVALID",
        when: "response.code_details == 'lua_response' && response.code == 400 && 'souk.edge' in metadata.filter_metadata",
        http: Some(400),
        codes: (Code::InvalidArgument, Code::InvalidArgument),
        message: None,
        field: Field::InMetadata,
    },
    Reason {
        name: "TOKEN_MISSING",
        when: "response.code_details == 'jwt_authn_access_denied{Jwt_is_missing}'",
        http: Some(401),
        codes: (Code::Unauthenticated, Code::Unauthenticated),
        message: Some("An access token is required."),
        field: Field::None,
    },
    Reason {
        name: "TOKEN_EXPIRED",
        when: "response.code_details == 'jwt_authn_access_denied{Jwt_is_expired}'",
        http: Some(401),
        codes: (Code::Unauthenticated, Code::Unauthenticated),
        message: Some("The access token has expired."),
        field: Field::None,
    },
    Reason {
        name: "KEYS_UNAVAILABLE",
        when: "response.code_details == 'jwt_authn_access_denied{Jwks_remote_fetch_is_failed}'",
        http: Some(503),
        codes: (Code::Unavailable, Code::Unavailable),
        message: Some("Access tokens cannot be verified right now."),
        field: Field::None,
    },
    Reason {
        name: "TOKEN_INVALID",
        when: "response.code_details.startsWith('jwt_authn_access_denied')",
        http: Some(401),
        codes: (Code::Unauthenticated, Code::Unauthenticated),
        message: Some("The access token is not valid."),
        field: Field::None,
    },
    Reason {
        name: "RATE_LIMITED",
        when: "response.code == 429",
        http: Some(429),
        codes: (Code::ResourceExhausted, Code::ResourceExhausted),
        message: Some("Too many requests."),
        field: Field::None,
    },
    Reason {
        name: "BODY_TOO_LARGE",
        when: "response.code == 413",
        http: Some(413),
        codes: (Code::ResourceExhausted, Code::ResourceExhausted),
        message: Some("The request body is longer than MAX_BODY bytes."),
        field: Field::None,
    },
    Reason {
        name: "HEADERS_TOO_LARGE",
        when: "response.code == 431",
        http: Some(431),
        codes: (Code::ResourceExhausted, Code::ResourceExhausted),
        message: Some("The request's headers are longer than 12 KiB, or there are more than 100."),
        field: Field::None,
    },
    Reason {
        name: "METHOD_NOT_FOUND",
        when: "response.code == 404",
        http: Some(404),
        codes: (Code::Unimplemented, Code::NotFound),
        message: Some("There is no such method."),
        field: Field::None,
    },
    Reason {
        name: "DEADLINE_EXCEEDED",
        when: "response.code == 504 || response.code == 408",
        http: Some(504),
        codes: (Code::DeadlineExceeded, Code::DeadlineExceeded),
        message: Some("The service did not answer in time."),
        field: Field::None,
    },
    Reason {
        name: "UPSTREAM_UNAVAILABLE",
        when: "response.code == 503",
        http: Some(503),
        codes: (Code::Unavailable, Code::Unavailable),
        message: Some("The service is unavailable."),
        field: Field::None,
    },
    Reason {
        name: "REQUEST_INVALID",
        when: "(response.code_details.contains('grpc_json_transcode_failure') || response.code_details == 'lua_response') && response.code == 400",
        http: Some(400),
        codes: (Code::InvalidArgument, Code::InvalidArgument),
        message: None,
        field: Field::None,
    },
    Reason {
        name: "REQUEST_INVALID",
        when: "response.code >= 400 && response.code < 500",
        http: None,
        codes: (Code::InvalidArgument, Code::InvalidArgument),
        message: Some("The request is not valid."),
        field: Field::None,
    },
    Reason {
        name: "EDGE_ERROR",
        when: "true",
        http: Some(500),
        codes: (Code::Internal, Code::Internal),
        message: Some("Internal error."),
        field: Field::None,
    },
];

/// One entry of the table, as the template renders it.
#[derive(Debug, Serialize)]
pub(crate) struct Mapper {
    reason: &'static str,
    when: &'static str,
    http: Option<u16>,
    message: Option<String>,
    /// For gRPC the whole error is in headers.
    grpc: Grpc,
    rest_code: i32,
    rest_message: &'static str,
    field: Option<&'static str>,
    authenticate: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Grpc {
    status: i32,
    message: String,
    details: String,
}

pub(crate) fn mappers(max_body: u32) -> Vec<Mapper> {
    TABLE.iter().map(|reason| reason.mapper(max_body)).collect()
}

impl Reason {
    fn mapper(&self, max_body: u32) -> Mapper {
        let own_message = self.message.map(|text| text.replace("MAX_BODY", &max_body.to_string()));
        let message = own_message.clone().unwrap_or("The request is not valid.".to_owned());
        let mut details = ErrorDetails::with_error_info(self.name, DOMAIN, std::collections::HashMap::new());
        if let Field::Named(field) = self.field {
            details.add_bad_request_violation(field, message.as_str());
        }
        let status = Status::with_error_details(self.codes.0, message.as_str(), details);
        let authenticate = match self.name {
            "TOKEN_MISSING" => Some("Bearer realm=\"souk\""),
            "TOKEN_EXPIRED" | "TOKEN_INVALID" => Some("Bearer realm=\"souk\", error=\"invalid_token\""),
            _ => None,
        };
        let (rest_message, field) = match self.field {
            Field::None => ("%LOCAL_REPLY_BODY%", None),
            Field::Named(field) => ("%LOCAL_REPLY_BODY%", Some(field)),
            Field::InMetadata => {
                ("%DYNAMIC_METADATA(souk.edge:field)%: %LOCAL_REPLY_BODY%", Some("%DYNAMIC_METADATA(souk.edge:field)%"))
            }
        };
        Mapper {
            reason: self.name,
            when: self.when,
            http: self.http,
            message: own_message,
            grpc: Grpc { status: self.codes.0 as i32, message, details: STANDARD_NO_PAD.encode(status.details()) },
            rest_code: self.codes.1 as i32,
            rest_message,
            field,
            authenticate,
        }
    }
}
