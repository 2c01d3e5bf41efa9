//! The log line of a request, and what its metrics count. Its span is `request_span`'s, and the
//! metrics are `request_metrics`'s.
//!
//! Owns their names and labels. Labels are route templates and fixed words: no path, no id and no
//! caller. A log line has no query string, as it may have a token.
//!
//! A gRPC call that is refused has the HTTP status 200. The status here is that of its gRPC code,
//! unless its answer had begun before.

use super::request_metrics::RequestMetrics;
use super::request_span;
use crate::http::TRACE_ID_HEADER;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use tracing::Span;

/// The header of an answer that is only a refusal of gRPC.
const GRPC_STATUS: &str = "grpc-status";

/// The route of a request that no route matches.
const NO_ROUTE: &str = "none";

/// One refusal in so many is logged at the level info, so that a flood of them does not fill a
/// disk. The others are at the level debug.
const REFUSALS_PER_LINE: u64 = 100;

/// The refusals of this process.
static REFUSALS: AtomicU64 = AtomicU64::new(0);

/// The place for the name of the caller, which authentication fills.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Caller(Arc<OnceLock<Arc<str>>>);

impl Caller {
    /// Sets the name, once.
    pub(in crate::server) fn set(&self, name: &Arc<str>) {
        self.0.get_or_init(|| Arc::clone(name));
    }
}

/// A request under way, as log, metrics and spans see it.
#[derive(Debug)]
pub(super) struct Observation {
    began: Instant,
    method: &'static str,
    route: Option<MatchedPath>,
    /// The span of the request.
    pub(super) span: Span,
    /// The place for the name of the caller.
    pub(super) caller: Caller,
}

impl Observation {
    /// Begins with a request on a connection of this scheme.
    pub(super) fn begin(scheme: &'static str, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let template = route.as_ref().map(MatchedPath::as_str);
        Self {
            began: Instant::now(),
            // Invented methods share one label.
            method: request_span::known_method(request.method()).unwrap_or("other"),
            span: request_span::begin(request, template, scheme),
            caller: Caller::default(),
            route,
        }
    }

    /// The route's template.
    pub(super) fn route(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }

    /// Logs and counts the request when its answer begins.
    pub(super) fn end(&self, response: &Response, metrics: &RequestMetrics) {
        let (route, method) = (self.route(), self.method);
        let status = status_of(response.status(), response.headers());
        let took = self.began.elapsed();
        request_span::end(&self.span, status);
        metrics.count(route, method, status, took);
        let trace_id = response.headers().get(TRACE_ID_HEADER);
        let trace_id = trace_id.and_then(|value| value.to_str().ok());
        let principal = self.caller.0.get().map(|name| &**name);
        let (ms, code) = (took.as_millis() as u64, status.as_u16());
        if is_logged_at_info(status, &REFUSALS) {
            tracing::info!(
                method,
                route,
                status = code,
                ms,
                principal,
                trace_id,
                "request"
            );
        } else {
            tracing::debug!(
                method,
                route,
                status = code,
                ms,
                principal,
                trace_id,
                "request"
            );
        }
    }
}

/// The status for log and metrics: that of HTTP, or of the gRPC code in the head of an answer.
fn status_of(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    let code = headers.get(GRPC_STATUS).map(|code| code.as_bytes());
    match code {
        Some(code) if status == StatusCode::OK => match code {
            b"3" | b"9" | b"11" => StatusCode::BAD_REQUEST,
            b"4" => StatusCode::GATEWAY_TIMEOUT,
            b"5" => StatusCode::NOT_FOUND,
            b"6" | b"10" => StatusCode::CONFLICT,
            b"7" => StatusCode::FORBIDDEN,
            b"8" => StatusCode::TOO_MANY_REQUESTS,
            b"12" => StatusCode::NOT_IMPLEMENTED,
            b"2" | b"13" | b"15" => StatusCode::INTERNAL_SERVER_ERROR,
            b"14" => StatusCode::SERVICE_UNAVAILABLE,
            b"16" => StatusCode::UNAUTHORIZED,
            _ => status,
        },
        _ => status,
    }
}

/// Whether the line has the level info: errors of the gateway always, refusals now and then.
fn is_logged_at_info(status: StatusCode, refusals: &AtomicU64) -> bool {
    let is_refusal = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if is_refusal {
        let refusals = refusals.fetch_add(1, Ordering::Relaxed);
        return refusals.is_multiple_of(REFUSALS_PER_LINE);
    }
    status.is_server_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn refusals_of_grpc_have_their_status() {
        for (code, expected) in [
            (None, 200),
            (Some("0"), 200),
            (Some("3"), 400),
            (Some("4"), 504),
            (Some("5"), 404),
            (Some("7"), 403),
            (Some("8"), 429),
            (Some("13"), 500),
            (Some("14"), 503),
            (Some("16"), 401),
            (Some("x"), 200),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(code) = code {
                headers.insert(GRPC_STATUS, HeaderValue::from_static(code));
            }
            let status = status_of(StatusCode::OK, &headers);
            assert_eq!(status, expected, "{code:?}");
            let status = status_of(StatusCode::NOT_FOUND, &headers);
            assert_eq!(status, 404, "{code:?}");
        }
    }

    #[test]
    fn a_flood_of_refusals_logs_few_lines() {
        let refusals = AtomicU64::new(0);
        let is_logged = |status| is_logged_at_info(status, &refusals);
        let lines = (0..1_000).filter(|_| is_logged(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(lines.count(), 10);
        assert!(is_logged(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!is_logged(StatusCode::NOT_FOUND));
    }
}
