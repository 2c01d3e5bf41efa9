//! A collector of spans: takes them by OTLP over HTTP, and notes what the protocol forbids.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

/// The content type of a request and of its answer.
const PROTOBUF: &str = "application/x-protobuf";

/// A span with the name of the service that sent it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl Received {
    /// The value of an attribute as a text. Empty without it.
    pub(crate) fn attribute(&self, key: &str) -> String {
        value_of(&self.span.attributes, key)
    }

    /// Whether its status is an error.
    pub(crate) fn has_failed(&self) -> bool {
        // 2 is STATUS_CODE_ERROR.
        self.span
            .status
            .as_ref()
            .is_some_and(|status| status.code == 2)
    }
}

/// A collector with what it received. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    spans: Vec<Received>,
    faults: Vec<String>,
}

impl Collector {
    /// Serves a collector on a free port until the test ends. Returns it with its URL.
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Received> {
        self.lock().spans.clone()
    }

    /// What the protocol forbids and was received.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// The spans of a service with this name.
    pub(crate) fn named(&self, service: &str, name: &str) -> Vec<Received> {
        let mut spans = self.spans();
        spans.retain(|found| found.service == service && found.span.name == name);
        spans
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != PROTOBUF.as_bytes()) {
        let fault = format!("a request with the content type {kind:?}");
        collector.lock().faults.push(fault);
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => collector.lock().add(request),
        Err(error) => {
            let fault = format!("a body that is no request: {error}");
            collector.lock().faults.push(fault);
            return StatusCode::BAD_REQUEST.into_response();
        }
    }
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    ([(header::CONTENT_TYPE, PROTOBUF)], answer).into_response()
}

impl Content {
    fn add(&mut self, request: ExportTraceServiceRequest) {
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = value_of(&resource.attributes, "service.name");
            for key in [
                "service.name",
                "service.instance.id",
                "telemetry.sdk.language",
                "deployment.environment.name",
            ] {
                if value_of(&resource.attributes, key).is_empty() {
                    self.faults.push(format!("{service:?} without {key}"));
                }
            }
            let scopes = of_resource.scope_spans.into_iter();
            for span in scopes.flat_map(|scope| scope.spans) {
                self.faults
                    .extend(fault_of(&span).map(|fault| format!("{service}: {fault}")));
                let service = service.clone();
                self.spans.push(Received { service, span });
            }
        }
    }
}

/// What is wrong with a span, by the protocol.
fn fault_of(span: &Span) -> Option<String> {
    let is_id = |id: &[u8], length: usize| id.len() == length && id.iter().any(|byte| *byte != 0);
    let is_right = is_id(&span.trace_id, 16)
        && is_id(&span.span_id, 8)
        && (span.parent_span_id.is_empty() || is_id(&span.parent_span_id, 8))
        && span
            .links
            .iter()
            .all(|link| is_id(&link.trace_id, 16) && is_id(&link.span_id, 8))
        && !span.name.is_empty()
        && span.kind != SpanKind::Unspecified as i32
        && span.start_time_unix_nano > 0
        && span.start_time_unix_nano <= span.end_time_unix_nano;
    (!is_right).then(|| format!("a span that the protocol forbids: {span:?}"))
}

/// The value of an attribute as a text. Empty without it.
fn value_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => other.map_or_else(String::new, |other| format!("{other:?}")),
    }
}
