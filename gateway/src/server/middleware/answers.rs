//! What every answer has, whatever made it: security headers, and a problem instead of a panic.

use crate::http::{Problem, ProblemKind};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Answers are not sniffed, and not cached unless a route says so.
pub(super) fn secure(headers: &mut HeaderMap) {
    headers.remove(header::SERVER);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
}

/// A panic of a handler is a 500, not a closed connection. The panic's message is left out: it may
/// have a value from the request.
pub(super) fn of_panic(route: &str, trace_id: Option<&str>) -> Response {
    let trace_id = trace_id.unwrap_or("none");
    tracing::error!(route, trace_id, "a handler panicked; this is a defect");
    let detail = "this is a defect of the gateway; report it with the trace id";
    Problem::new(ProblemKind::Internal, detail).into_response()
}
