//! The span of a payment request at the provider, as a child of the span of its client.
//!
//! Owns the attribute names, by OpenTelemetry's conventions for HTTP servers. Neither the request
//! nor the answer is an attribute.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use evenkeel::event::{Headers, TraceContext};
use evenkeel::telemetry::continue_trace;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// `error.type` of a request that was given up without an answer: its client did not wait longer,
/// or the provider ended.
const UNANSWERED: &str = "unanswered";

/// The span of a request. One that is dropped without an answer is an error.
struct PaymentSpan {
    span: Span,
    is_answered: bool,
}

impl PaymentSpan {
    fn answered(mut self, status: StatusCode) {
        self.is_answered = true;
        let code = i64::from(status.as_u16());
        self.span.record("http.response.status_code", code);
        if status.is_server_error() {
            self.failed(status.as_str());
        }
    }

    fn failed(&self, kind: &str) {
        self.span.record("error.type", kind);
        self.span.record("otel.status_code", "error");
    }
}

impl Drop for PaymentSpan {
    fn drop(&mut self) {
        if !self.is_answered {
            self.failed(UNANSWERED);
        }
    }
}

/// The route of payments with a span for each. A request with another method has none: it is no
/// payment.
pub(super) fn traced<S>(payments: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    payments.route_layer(from_fn(record))
}

/// The middleware: the span lasts until the head of the answer, or until the request is given up.
async fn record(request: Request, next: Next) -> Response {
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
    let payment = PaymentSpan {
        span: span.clone(),
        is_answered: false,
    };
    let answer = next.run(request).instrument(span).await;
    payment.answered(answer.status());
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use std::collections::BTreeMap;
    use std::fmt;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tower::ServiceExt;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    type Fields = BTreeMap<&'static str, String>;

    /// Keeps what is recorded of all spans.
    #[derive(Clone, Default)]
    struct Recorded(Arc<Mutex<Fields>>);

    impl Subscriber for Recorded {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            let mut fields = self.0.lock().expect("no thread panicked with the lock");
            values.record(&mut Values(&mut fields));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    struct Values<'a>(&'a mut Fields);

    impl Visit for Values<'_> {
        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name(), value.to_owned());
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name(), format!("{value:?}"));
        }
    }

    /// The fields of a request with this method, whose handler answers so, or never.
    async fn fields_of(method: &str, answer: Option<StatusCode>) -> Fields {
        let recorded = Recorded::default();
        let _subscribed = tracing::subscriber::set_default(recorded.clone());
        let handler = move || async move {
            match answer {
                Some(status) => status,
                None => std::future::pending().await,
            }
        };
        let router: Router = Router::new().route("/payments", traced(post(handler)));
        let request = axum::http::Request::builder()
            .method(method)
            .uri("/payments");
        let request = request.body(Body::empty()).expect("a request");
        let answered = tokio::time::timeout(Duration::from_secs(1), router.oneshot(request)).await;
        assert_eq!(answered.is_ok(), answer.is_some());
        let fields = recorded.0.lock().expect("no thread panicked with the lock");
        fields.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_is_an_error() {
        for (answer, code, kind) in [
            (Some(StatusCode::OK), Some("200"), None),
            (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Some("503"),
                Some("503"),
            ),
            (None, None, Some(UNANSWERED)),
        ] {
            let fields = fields_of("POST", answer).await;
            let field = |name: &'static str| fields.get(name).map(String::as_str);
            assert_eq!(field("http.response.status_code"), code, "{answer:?}");
            assert_eq!(field("error.type"), kind, "{answer:?}");
            let status = kind.map(|_| "error");
            assert_eq!(field("otel.status_code"), status, "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_method_has_no_span() {
        let fields = fields_of("GET", Some(StatusCode::OK)).await;
        assert_eq!(fields, Fields::new());
    }
}
