//! The span of a request to the payment provider, and the trace that the request carries.
//!
//! The provider is queried before the handler, so outside of its span `process`: both are children
//! of the context that the record carries. Owns the attribute names, by OpenTelemetry's conventions
//! for HTTP clients. Neither the request nor the answer is an attribute.

use evenkeel::event::TraceContext;
use evenkeel::handler::Delivery;
use evenkeel::telemetry::{continue_trace, trace_of};
use reqwest::header::HeaderValue;
use reqwest::{RequestBuilder, StatusCode, Url};
use tracing::Span;
use tracing::field::Empty;

/// The path of payments at the provider.
pub(super) const PATH: &str = "/payments";

/// The provider's address as attributes: without user, password and query.
#[derive(Debug, Clone, Default)]
pub(super) struct Address {
    host: Option<String>,
    port: Option<i64>,
    url: Option<String>,
}

impl Address {
    /// The address of a URL. Empty for one that cannot be read: requests fail then.
    pub(super) fn of(url: &str) -> Self {
        let Ok(url) = Url::parse(url) else {
            return Self::default();
        };
        let host = url.host_str().map(str::to_owned);
        let port = url.port_or_known_default().map(i64::from);
        let full = host.as_ref().zip(port).map(|(host, port)| {
            let (scheme, path) = (url.scheme(), url.path());
            format!("{scheme}://{host}:{port}{path}")
        });
        Self {
            host,
            port,
            url: full,
        }
    }
}

/// The span of one request, until it is dropped.
pub(super) struct RequestSpan {
    pub(super) span: Span,
    /// The context that the request carries.
    trace: Option<TraceContext>,
}

impl RequestSpan {
    /// Begins the span of the request for a delivery.
    pub(super) fn begin(address: &Address, delivery: &Delivery) -> Self {
        let repeated = delivery.attempt.saturating_sub(1);
        let span = tracing::info_span!(
            "request",
            otel.name = "POST /payments",
            otel.kind = "client",
            http.request.method = "POST",
            http.request.resend_count = (repeated > 0).then_some(i64::from(repeated)),
            url.template = PATH,
            url.full = address.url.as_deref(),
            server.address = address.host.as_deref(),
            server.port = address.port,
            http.response.status_code = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        let carried = TraceContext::from_headers(delivery.record.headers());
        if let Some(carried) = &carried {
            continue_trace(&span, carried);
        }
        // A process that exports no spans passes on the trace nevertheless.
        let trace = trace_of(&span).or_else(|| carried.map(|carried| carried.child()));
        Self { span, trace }
    }

    /// Adds the context to the request. A text that no header can hold is left out.
    pub(super) fn carried_by(&self, mut request: RequestBuilder) -> RequestBuilder {
        let Some(trace) = &self.trace else {
            return request;
        };
        let state = trace.tracestate.as_deref();
        for (name, text) in [
            ("traceparent", Some(trace.traceparent.as_str())),
            ("tracestate", state),
        ] {
            if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
                request = request.header(name, value);
            }
        }
        request
    }

    /// Adds the status of the answer.
    pub(super) fn answered(&self, status: StatusCode) {
        let code = status.as_u16();
        self.span
            .record("http.response.status_code", i64::from(code));
        if !status.is_success() {
            self.failed(status.as_str());
        }
    }

    /// Marks the request as failed without an answer.
    pub(super) fn unanswered(&self, error: &reqwest::Error) {
        self.failed(match error {
            error if error.is_timeout() => "timeout",
            error if error.is_connect() => "connect",
            _ => "_OTHER",
        });
    }

    fn failed(&self, kind: &str) {
        self.span.record("error.type", kind);
        self.span.record("otel.status_code", "error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::RecordBatchBuilder;
    use evenkeel::handler::DeliveryScope;
    use std::sync::Arc;

    fn delivery(headers: &[(&str, &str)]) -> Delivery {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source("shop.orders".into(), 0);
        batch.push(source, 1, 1, Some(b"o-1"), Some(b"{}".as_slice()), headers);
        let record = batch.build(None).record(0).expect("one record");
        Delivery::new(record, 1, Arc::new(DeliveryScope::new("payments")))
    }

    fn carried(headers: &[(&str, &str)], name: &str) -> Option<String> {
        let span = RequestSpan::begin(&Address::default(), &delivery(headers));
        let request = reqwest::Client::new().post("http://localhost/payments");
        let request = span.carried_by(request).build().expect("a request");
        let value = request.headers().get(name)?;
        Some(value.to_str().expect("a text").to_owned())
    }

    #[test]
    fn a_request_carries_the_trace_of_its_record() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let headers = [("traceparent", traceparent), ("tracestate", "vendor=1")];
        let child = carried(&headers, "traceparent").expect("a trace");
        assert_eq!(child[..36], traceparent[..36], "the same trace");
        assert_ne!(child, traceparent, "a hop of its own");
        assert!(child.ends_with("-00"), "{child} stays unsampled");
        let state = carried(&headers, "tracestate");
        assert_eq!(state.as_deref(), Some("vendor=1"));
        assert_eq!(carried(&[], "traceparent"), None);
    }

    #[test]
    fn the_address_shows_neither_user_nor_password_nor_query() {
        let address = Address::of("https://jane:hunter2@pay.example/payments?token=x");
        assert_eq!(
            address.url.as_deref(),
            Some("https://pay.example:443/payments")
        );
        assert_eq!(address.host.as_deref(), Some("pay.example"));
        assert_eq!(address.port, Some(443));
        assert_eq!(Address::of("nonsense").url, None);
    }
}
