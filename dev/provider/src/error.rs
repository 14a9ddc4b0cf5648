//! Errors in Stripe's format. They are not stored under an idempotency key, as nothing was executed, except for
//! [`Error::Broken`].

use std::borrow::Cow;
use std::io;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::http::ApiResponse;
use crate::limits::Limit;

#[derive(Debug)]
pub(crate) enum Error {
    ApiKeyMissing,
    ApiKeyInvalid,
    UrlUnknown(String),
    Malformed {
        status: StatusCode,
        why: String,
    },
    ParameterMissing(&'static str),
    ParameterInvalid {
        param: &'static str,
        why: String,
    },
    ParameterUnknown(String),
    AmountTooSmall {
        param: &'static str,
        least: u64,
    },
    AmountTooLarge(&'static str),
    NotFound {
        what: &'static str,
        param: &'static str,
        id: String,
    },
    KeyLength,
    KeyReused(String),
    KeyInUse,
    Limited(Limit),
    /// Simulated by the payment method, with or without the effect. The only error that is stored.
    Broken,
    /// Simulated by the payment method, after the hang.
    GaveUp,
    Journal(io::Error),
}

/// The content of `{"error": ...}`, and the HTTP status.
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) decline_code: Option<&'static str>,
    pub(crate) param: Option<Cow<'static, str>>,
    pub(crate) message: Cow<'static, str>,
    pub(crate) intent: Option<Value>,
}

impl Problem {
    pub(crate) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Problem {
        Problem {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code: None,
            decline_code: None,
            param: None,
            message: message.into(),
            intent: None,
        }
    }

    fn api_error(status: StatusCode, message: &'static str) -> Problem {
        Problem { status, kind: "api_error", ..Problem::invalid_request(message) }
    }

    fn invalid_param(code: &'static str, param: &'static str, message: impl Into<Cow<'static, str>>) -> Problem {
        Problem { code: Some(code), param: Some(param.into()), ..Problem::invalid_request(message) }
    }

    pub(crate) fn api_response(self) -> ApiResponse {
        let mut error = Map::new();
        error.insert("type".into(), self.kind.into());
        error.insert("message".into(), self.message.into());
        let optional = [("code", self.code.map(Cow::from)), ("decline_code", self.decline_code.map(Cow::from))];
        for (name, text) in optional.into_iter().chain([("param", self.param)]) {
            if let Some(text) = text {
                error.insert(name.into(), text.into());
            }
        }
        if let Some(intent) = self.intent {
            error.insert("payment_intent".into(), intent);
        }
        ApiResponse::new(self.status, json!({ "error": error }))
    }
}

impl Error {
    pub(crate) fn api_response(self) -> ApiResponse {
        self.explain().api_response()
    }

    fn explain(self) -> Problem {
        match self {
            Error::ApiKeyMissing => Problem {
                status: StatusCode::UNAUTHORIZED,
                ..Problem::invalid_request(
                    "You did not provide an API key. Provide it in the Authorization header, using Bearer auth.",
                )
            },
            Error::ApiKeyInvalid => Problem {
                status: StatusCode::UNAUTHORIZED,
                ..Problem::invalid_request("Invalid API Key provided: it must begin with sk_.")
            },
            Error::UrlUnknown(url) => Problem {
                status: StatusCode::NOT_FOUND,
                ..Problem::invalid_request(format!("Unrecognized request URL ({url})."))
            },
            Error::Malformed { status, why } => Problem { status, ..Problem::invalid_request(why) },
            Error::ParameterMissing(param) => {
                Problem::invalid_param("parameter_missing", param, format!("Missing required param: {param}."))
            }
            Error::ParameterInvalid { param, why } => Problem::invalid_param("parameter_invalid", param, why),
            Error::ParameterUnknown(param) => Problem {
                code: Some("parameter_unknown"),
                ..Problem {
                    param: Some(param.clone().into()),
                    ..Problem::invalid_request(format!("Received unknown parameter: {param}"))
                }
            },
            Error::AmountTooSmall { param, least } => {
                Problem::invalid_param("amount_too_small", param, format!("Amount must be at least {least}."))
            }
            Error::AmountTooLarge(param) => {
                Problem::invalid_param("amount_too_large", param, "Amount must be no more than 99999999.")
            }
            Error::NotFound { what, param, id } => Problem {
                status: StatusCode::NOT_FOUND,
                ..Problem::invalid_param("resource_missing", param, format!("No such {what}: '{id}'"))
            },
            Error::KeyLength => Problem::invalid_request("An idempotency key has 1 to 255 characters."),
            Error::KeyReused(key) => Problem {
                kind: "idempotency_error",
                ..Problem::invalid_request(format!(
                    "Keys for idempotent requests can only be used with the same parameters they were first used \
                     with. Try using a key other than '{key}' if you meant to execute a different request."
                ))
            },
            Error::KeyInUse => Problem {
                status: StatusCode::CONFLICT,
                kind: "idempotency_error",
                code: Some("idempotency_key_in_use"),
                ..Problem::invalid_request("There is currently another in-progress request using this key.")
            },
            Error::Limited(Limit { reason: Limit::LOCK_TIMEOUT, .. }) => Problem {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: Some(Limit::LOCK_TIMEOUT),
                ..Problem::invalid_request(
                    "This object cannot be accessed right now because another API request or Stripe process is \
                     currently accessing it.",
                )
            },
            Error::Limited(_) => Problem {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: Some("rate_limit"),
                ..Problem::invalid_request("Request rate limit exceeded.")
            },
            Error::Broken => Problem::api_error(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our end."),
            Error::GaveUp => Problem::api_error(StatusCode::GATEWAY_TIMEOUT, "The request took too long."),
            Error::Journal(error) => {
                tracing::error!(%error, "the journal cannot be written or read; the call had no effect");
                Problem::api_error(StatusCode::INTERNAL_SERVER_ERROR, "The journal cannot be written or read.")
            }
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Journal(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let limit = if let Error::Limited(limit) = self { Some(limit) } else { None };
        let mut response = self.api_response().into_response();
        if let Some(Limit { reason, retry_after }) = limit {
            let headers = response.headers_mut();
            if reason != Limit::LOCK_TIMEOUT {
                let name = HeaderName::from_static("stripe-rate-limited-reason");
                headers.insert(name, HeaderValue::from_static(reason));
            }
            if let Some(seconds) = retry_after {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        response
    }
}
