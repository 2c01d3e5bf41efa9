//! What every answer has, whatever made it: security headers, and a problem instead of a panic.

use crate::http::{Problem, ProblemKind, RequestContext};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

/// Answers are not sniffed, and not cached unless a route says so.
pub(super) async fn secure_headers<F>(request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let mut response = next(request).await;
    let headers = response.headers_mut();
    headers.remove(header::SERVER);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// A panic of a handler is a 500, not a closed connection. The panic's message is left out: it may
/// have a value from the request.
pub(super) async fn catch_panics<F>(request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let route = request.extensions().get::<MatchedPath>().cloned();
    let context = request.extensions().get::<RequestContext>().cloned();
    match AssertUnwindSafe(next(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            let route = route.as_ref().map_or("none", MatchedPath::as_str);
            let trace_id = context.as_ref().map_or("none", RequestContext::trace_id);
            tracing::error!(route, trace_id, "a handler panicked; this is a defect");
            let detail = "this is a defect of the gateway; report it with the trace id";
            Problem::new(ProblemKind::Internal, detail).into_response()
        }
    }
}
