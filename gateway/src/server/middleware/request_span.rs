//! The span of a request, with OpenTelemetry's attribute names for HTTP servers.
//!
//! Owns the attributes: the route's template and fixed words. No path, no query and no caller, as
//! these may be secrets or persons. Without a listening subscriber it costs one check.

use crate::http::caller_trace;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use evenkeel::telemetry::continue_trace;
use tracing::field::Empty;
use tracing::{Span, debug_span};

/// The target of the span: `EVENKEEL_SPANS=info,evenkeel=debug,evenkeel_gateway::request=off`
/// exports it no longer.
const TARGET: &str = "evenkeel_gateway::request";

/// Creates the span of a request, as a child of its caller's span. It lasts until the head of the
/// answer.
pub(super) fn begin(request: &Request, route: Option<&str>, scheme: &'static str) -> Span {
    let method = known_method(request.method());
    let span = debug_span!(
        target: TARGET,
        "request",
        otel.name = name(method, route),
        otel.kind = "server",
        http.request.method = method.unwrap_or("_OTHER"),
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = scheme,
        error.type = Empty,
        otel.status_code = Empty,
    );
    if !span.is_disabled()
        && let Some(caller) = caller_trace(request.headers())
    {
        continue_trace(&span, &caller);
    }
    span
}

/// Adds the status of the answer. Errors of the gateway make the span one of an error; refusals do
/// not, as they are the caller's.
pub(super) fn end(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "error");
    }
}

/// The name of the span: method and route, or the method alone without a route.
fn name(method: Option<&str>, route: Option<&str>) -> String {
    // By the convention the name of an unknown method is HTTP.
    let method = method.unwrap_or("HTTP");
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// The method, if it is one of the standard: any other text is the client's invention.
pub(super) fn known_method(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_after_method_and_route() {
        let invented = Method::from_bytes(b"STEAL").expect("a token");
        for (method, route, expected) in [
            (Method::POST, Some("/events/{name}"), "POST /events/{name}"),
            (Method::GET, None, "GET"),
            (invented, Some("/ws"), "HTTP /ws"),
        ] {
            assert_eq!(name(known_method(&method), route), expected);
        }
    }
}
