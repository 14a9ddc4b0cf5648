//! What an error says.

use tonic::Status;
use tonic_types::StatusExt;

/// The reason of an error, and its domain: `ORDER_NOT_FOUND@souk.order`.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("no ErrorInfo in {status:?}"), |info| format!("{}@{}", info.reason, info.domain))
}

/// The fields that an error names.
pub fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
