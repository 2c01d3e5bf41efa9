//! The span of a payment request at the provider, as a child of the span of its client.
//!
//! Owns the attribute names, by OpenTelemetry's conventions for HTTP servers. Neither the request
//! nor the answer is an attribute.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use evenkeel::event::{Headers, TraceContext};
use evenkeel::telemetry::continue_trace;
use tracing::Instrument;
use tracing::field::Empty;

/// The middleware: the span lasts until the head of the answer.
pub(super) async fn record(request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "payment",
        otel.name = "POST /payments",
        otel.kind = "server",
        http.request.method = "POST",
        http.route = "/payments",
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_code = Empty,
    );
    if let Some(client) = client_trace(request.headers()) {
        continue_trace(&span, &client);
    }
    let answer = next.run(request).instrument(span.clone()).await;
    let status = answer.status();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "error");
    }
    answer
}

/// The trace that the client is in. None without a valid `traceparent`.
fn client_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut read = Headers::new();
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = headers.get(name) {
            read.push(name, Some(value.as_bytes()));
        }
    }
    TraceContext::from_headers(read.iter())
}
