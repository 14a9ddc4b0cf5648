//! Errors: a `google.rpc.Status`, always with an ErrorInfo, and with further details where they help.
//!
//! A service has one `Error` enum. Errors that a caller may read become a [`Refusal`]; unexpected errors are logged here, once,
//! and the caller gets a fixed text.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::boot::metrics;
use crate::rpc::run_to_end::is_too_late;

/// The details travel in headers, which many clients limit to 16 KiB: so the number of fields and the lengths of texts are
/// bounded, as in the contracts.
const MAX_FIELDS: usize = 10;
const MAX_TEXT: usize = 120;
const MAX_MESSAGE: usize = 1_000;

/// An error that the caller cannot fix and must not read.
#[derive(Debug, thiserror::Error)]
pub enum Unexpected {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("stored bytes do not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("stored JSON does not decode: {0}")]
    Json(#[from] serde_json::Error),
    /// A peer is unavailable; the call may be retried.
    #[error("{peer} is unavailable: {source}")]
    Peer { peer: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// An invariant is violated.
    #[error("{0}")]
    Broken(String),
}

impl Unexpected {
    /// A statement timed out, perhaps because its caller had no more time.
    fn is_cancelled_statement(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57014"))
    }

    /// Whether the error is transient: the same attempt may succeed later.
    pub fn will_pass(&self) -> bool {
        match self {
            Self::Peer { .. } => true,
            Self::Database(sqlx::Error::Database(error)) => sqlstate_will_pass(&error.code().unwrap_or_default()),
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
            ),
            Self::Decode(_) | Self::Json(_) | Self::Broken(_) => false,
        }
    }
}

/// Whether this code of Postgres is transient.
fn sqlstate_will_pass(code: &str) -> bool {
    match code {
        // A standby, as after a failover; sessions that Postgres ended because they were idle in a transaction, or because the
        // transaction took too long.
        "25006" | "25P03" | "25P04" => true,
        // A constraint that was checked at the end of the transaction: the same attempt fails again.
        "40002" => false,
        // Locks that are held, objects that are in use, databases that accept no connections for now. The rest of the class are
        // mistakes in a statement.
        "55000" | "55006" | "55P03" => true,
        // Objects or privileges that `souk migrate` has not created yet. The rest of the class are mistakes in a statement.
        "42501" | "42703" | "42704" | "42883" | "42P01" => true,
        // Connections, logins and databases that do not exist yet; serialization failures and deadlocks; resources; cancelled
        // statements and shutdowns; errors of the operating system.
        _ => ["08", "28", "3D", "3F", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)),
    }
}

/// Errors of any service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an idempotency key is required, as request_id or as the Idempotency-Key header")]
    KeyRequired,
    #[error("an idempotency key is 1 to 128 visible characters")]
    KeyInvalid,
    #[error("request_id and the Idempotency-Key header are both present, and differ")]
    KeysDiffer,
    #[error("this idempotency key was used for a different request")]
    KeyReused,
    #[error("the same request is in progress")]
    InProgress,
    #[error("page_token is invalid, or belongs to another list")]
    PageTokenInvalid,
    #[error("update_mask: {0} cannot be changed")]
    MaskInvalid(String),
    #[error("the resource has changed since it was read: read it again")]
    EtagMismatch,
    #[error("{}", describe(.0))]
    FieldsInvalid(Vec<Violation>),
    #[error("the request is not a valid gRPC message: {0}")]
    Malformed(&'static str),
    #[error("the message is compressed in a way that is not supported")]
    EncodingUnsupported,
    #[error("an access token is required")]
    TokenRequired,
    #[error("the access token is not valid: {0}")]
    TokenInvalid(&'static str),
    #[error("the session of the access token has ended")]
    TokenRevoked,
    #[error("access tokens cannot be verified right now")]
    KeysUnavailable,
    #[error("the caller may not call this method")]
    PermissionDenied,
    #[error("there is no such method")]
    MethodNotFound,
    #[error("the service is overloaded; try again")]
    Overloaded,
    #[error("{scope} has {limit} open streams, which is the most")]
    StreamsExhausted { scope: &'static str, limit: usize },
    #[error("the replica is stopping; call again")]
    Stopping,
    #[error("the deadline passed; the outcome is unknown")]
    DeadlineExceeded,
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

impl Error {
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::FieldsInvalid(vec![(field.into(), description.into())])
    }

    pub fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        let key = |code, reason| Refusal::new(code, reason, &text).field("request_id", &text);
        Ok(match self {
            Self::KeyRequired => key(Code::InvalidArgument, "IDEMPOTENCY_KEY_REQUIRED"),
            Self::KeyInvalid => key(Code::InvalidArgument, "IDEMPOTENCY_KEY_INVALID"),
            Self::KeysDiffer => key(Code::InvalidArgument, "IDEMPOTENCY_KEYS_DIFFER"),
            Self::KeyReused => key(Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"),
            Self::InProgress => {
                Refusal::new(Code::Aborted, "REQUEST_IN_PROGRESS", text).retry_after(Duration::from_millis(100))
            }
            Self::PageTokenInvalid => {
                Refusal::new(Code::InvalidArgument, "PAGE_TOKEN_INVALID", &text).field("page_token", &text)
            }
            Self::MaskInvalid(_) => {
                Refusal::new(Code::InvalidArgument, "UPDATE_MASK_INVALID", &text).field("update_mask", &text)
            }
            Self::EtagMismatch => Refusal::new(Code::Aborted, "ETAG_MISMATCH", text),
            Self::FieldsInvalid(violations) => violations
                .into_iter()
                .fold(Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", text), |refusal, (field, description)| {
                    refusal.field(field, description)
                }),
            Self::Malformed(_) => Refusal::new(Code::InvalidArgument, "REQUEST_INVALID", text),
            Self::EncodingUnsupported => Refusal::new(Code::Unimplemented, "ENCODING_UNSUPPORTED", text),
            Self::TokenRequired => Refusal::new(Code::Unauthenticated, "TOKEN_MISSING", text),
            Self::TokenInvalid(_) => Refusal::new(Code::Unauthenticated, "TOKEN_INVALID", text),
            Self::TokenRevoked => Refusal::new(Code::Unauthenticated, "TOKEN_REVOKED", text),
            Self::KeysUnavailable => {
                Refusal::new(Code::Unavailable, "KEYS_UNAVAILABLE", text).retry_after(Duration::from_secs(1))
            }
            Self::PermissionDenied => Refusal::new(Code::PermissionDenied, "PERMISSION_DENIED", text),
            Self::MethodNotFound => Refusal::new(Code::Unimplemented, "METHOD_NOT_FOUND", text),
            Self::Overloaded => {
                Refusal::new(Code::Unavailable, "OVERLOADED", text).retry_after(Duration::from_millis(250))
            }
            Self::StreamsExhausted { scope, limit } => {
                let refusal = Refusal::new(Code::ResourceExhausted, "STREAMS_EXHAUSTED", text);
                refusal.with("scope", scope).with("limit", limit).retry_after(Duration::from_secs(5))
            }
            Self::Stopping => Refusal::new(Code::Unavailable, "STOPPING", text).retry_after(Duration::from_millis(500)),
            Self::DeadlineExceeded => Refusal::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", text),
            Self::Unexpected(unexpected) => return Err(unexpected),
        })
    }

    /// For a call that is refused before it reaches a service.
    pub fn into_status(self, domain: &str) -> Status {
        to_status(self.explain(), domain)
    }
}

/// The path of a field of the request, and what is wrong with it.
pub type Violation = (String, String);

fn describe(violations: &[Violation]) -> String {
    violations.iter().map(|(field, description)| format!("{field}: {description}")).collect::<Vec<_>>().join("; ")
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Unexpected(error.into())
    }
}

/// An error that a caller may read.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    fields: Vec<FieldViolation>,
    details: ErrorDetails,
}

impl Refusal {
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let (message, metadata, details) = (message.into(), HashMap::new(), ErrorDetails::new());
        Self { code, reason, message, metadata, fields: vec![], details }
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    /// INVALID_ARGUMENT. The message says what is wrong with each of these fields.
    pub fn invalid<F: Into<String>>(
        reason: &'static str,
        fields: impl IntoIterator<Item = F>,
        message: String,
    ) -> Self {
        let refusal = Self::new(Code::InvalidArgument, reason, message.clone());
        fields.into_iter().fold(refusal, |refusal, field| refusal.field(field, message.clone()))
    }

    /// FAILED_PRECONDITION. The message says what about the subject, such as the order, stands in the way.
    pub fn precondition(reason: &'static str, subject: impl Into<String>, message: String) -> Self {
        let mut refusal = Self::new(Code::FailedPrecondition, reason, message.clone());
        refusal.details.add_precondition_failure_violation(reason, subject, message);
        refusal
    }

    /// Names a field of the request by its path, such as `items[0].quantity`.
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.fields.push(FieldViolation::new(field, description));
        self
    }

    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Adds a value for programs, such as the SKU that was short.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    pub fn into_status(mut self, domain: &str) -> Status {
        self.details.set_error_info(self.reason, domain, self.metadata);
        for it in self.fields.iter().take(MAX_FIELDS) {
            let (field, description) = (shorten(&it.field, MAX_TEXT), shorten(&it.description, MAX_TEXT));
            self.details.add_bad_request_violation(field, description);
        }
        let mut message = shorten(&self.message, MAX_MESSAGE).to_owned();
        if let Some(more @ 1..) = self.fields.len().checked_sub(MAX_FIELDS) {
            message.push_str(&format!("; {more} more fields"));
        }
        let mut status = Status::with_error_details(self.code, message, self.details);
        if self.code == Code::Unauthenticated {
            let challenge = AsciiMetadataValue::from_static(challenge(self.reason));
            status.metadata_mut().insert("www-authenticate", challenge);
        }
        status
    }
}

/// The challenge of a 401 (RFC 9110, 15.5.2 and RFC 6750, 3), the same at the edge.
fn challenge(reason: &str) -> &'static str {
    match reason {
        "TOKEN_INVALID" | "TOKEN_REVOKED" => "Bearer realm=\"souk\", error=\"invalid_token\"",
        _ => "Bearer realm=\"souk\"",
    }
}

fn shorten(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Converts the error of one service for its callers.
pub trait Explain: std::error::Error {
    /// Such as `souk.order`.
    const DOMAIN: &'static str;

    fn explain(self) -> Result<Refusal, Unexpected>;
}

/// The result of a gRPC method.
pub type RpcResult<T> = Result<Response<T>, Status>;

/// Converts the result of a handler into a response. An unexpected error is logged here and nowhere else.
pub fn respond<T, E: Explain>(result: Result<T, E>) -> RpcResult<T> {
    result.map(Response::new).map_err(|error| to_status(error.explain(), E::DOMAIN))
}

pub(crate) fn to_status(explained: Result<Refusal, Unexpected>, domain: &str) -> Status {
    let unexpected = match explained {
        Ok(refusal) => return refusal.into_status(domain),
        Err(unexpected) if unexpected.is_cancelled_statement() && is_too_late() => {
            return Error::DeadlineExceeded.into_status(domain);
        }
        Err(unexpected) => unexpected,
    };
    metrics::count_unexpected(domain);
    tracing::error!(error = %unexpected, domain, "a call failed unexpectedly");
    if unexpected.will_pass() {
        Refusal::new(Code::Unavailable, "UNAVAILABLE", "the service is unavailable; try again")
            .retry_after(Duration::from_millis(500))
            .into_status(domain)
    } else {
        Refusal::new(Code::Internal, "INTERNAL", "internal error").into_status(domain)
    }
}

/// Converts the violation of a named constraint into `meaning`; other errors stay as they are.
pub fn on_constraint<S, E>(name: &str, meaning: E) -> impl FnOnce(S) -> E
where
    S: Into<Unexpected>,
    E: From<Unexpected>,
{
    move |error| match error.into() {
        Unexpected::Database(sqlx::Error::Database(error)) if error.constraint() == Some(name) => meaning,
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_sqlstate_is_known_by_what_it_means() {
        let pass = [
            "08000", "08003", "08006", "08P01", "25006", "25P03", "25P04", "28000", "28P01", "3D000", "3F000", "40001",
            "40003", "40P01", "42501", "42703", "42704", "42883", "42P01", "53000", "53100", "53200", "53300", "53400",
            "55006", "55P03", "57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030", "58P01",
        ];
        let stay = [
            "", "22001", "22P02", "23505", "23514", "25000", "25001", "25P01", "25P02", "40002", "42601", "42804",
            "42P02", "55P02", "55P04", "XX000", "XX001",
        ];
        for code in pass {
            assert!(sqlstate_will_pass(code), "{code}");
        }
        for code in stay {
            assert!(!sqlstate_will_pass(code), "{code}");
        }
    }
}
