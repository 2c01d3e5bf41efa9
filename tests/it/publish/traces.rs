//! Traces: the spans of an event's way, as a collector receives them.
//!
//! The services run in a process of their own, because a process has one subscriber and the
//! environment names the collector. The collector is a server in the test.

use crate::support::{Log, Member, WITHIN, assignment, second_process};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use evenkeel::consumer::ConsumerSettings;
use evenkeel::event::{Event, EventType, TraceContext};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::SqliteInbox;
use evenkeel::outbox::{Relay, SqliteOutbox};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use evenkeel::testing::{ChildProcess, KafkaKind, TestKafka};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// The trace of an event whose producer does not sample it.
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// What the second process does.
#[derive(Serialize, Deserialize)]
enum Role {
    /// Is a shop: a producer, two services and a relay.
    Shop,
    /// Ends its export to a collector that does not answer.
    Finish,
}

#[derive(Serialize, Deserialize)]
struct Placed {
    order: String,
}

impl EventType for Placed {
    const TYPE: &'static str = "it.placed.v1";
    const TOPIC: &'static str = "it.placed";

    fn key(&self) -> String {
        self.order.clone()
    }
}

#[derive(Serialize, Deserialize)]
struct Shipped {
    order: String,
}

impl EventType for Shipped {
    const TYPE: &'static str = "it.shipped.v1";
    const TOPIC: &'static str = "it.shipped";

    fn key(&self) -> String {
        self.order.clone()
    }
}

/// What a collector received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Span)>>>);

impl Received {
    /// The spans with the name of their service.
    fn spans(&self) -> Vec<(String, Span)> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }

    /// The only span of this name for which `is_it` holds.
    fn only(&self, name: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let spans = self.spans().into_iter().map(|(_, span)| span);
        let mut found: Vec<Span> = spans
            .filter(|span| span.name == name && is_it(span))
            .collect();
        let only = found.pop();
        assert!(found.is_empty(), "several spans {name}");
        only.unwrap_or_else(|| panic!("no span {name} in {:#?}", self.spans()))
    }
}

/// A collector that accepts spans from callers who have the right header.
async fn collector() -> (String, Received) {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let router = axum::Router::new()
        .route("/v1/traces", post(receive))
        .with_state(received.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

async fn receive(
    State(received): State<Received>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> StatusCode {
    if headers.get("x-tenant").is_none_or(|tenant| tenant != "it") {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut spans = received.0.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = text(&resource.attributes, "service.name").unwrap_or_default();
        let scopes = of_resource.scope_spans.into_iter();
        let found = scopes.flat_map(|scope| scope.spans);
        spans.extend(found.map(|span| (service.clone(), span)));
    }
    StatusCode::OK
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// Runs a test of this module again, with its spans exported to `endpoint`.
async fn run(test: &str, role: &Role, endpoint: &str) {
    let mut command = second_process::command(test, role);
    command
        .env_remove("RUST_LOG")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=it")
        .env("OTEL_SERVICE_NAME", "it-shop");
    ChildProcess::run(command, "", WITHIN * 2).await.code(0);
}

async fn start_daemon() -> Daemon {
    let settings = DaemonSettings::new("unnamed").without_signals();
    Daemon::start(settings).await.expect("the daemon starts")
}

/// Fails once, so that a retry is among the spans.
async fn ship(placed: Event<Placed>, context: Context) -> Result<(), HandlerError> {
    if context.attempt() == 1 {
        return Err(HandlerError::transient("not yet"));
    }
    let order = placed.data.order;
    context.publish(Shipped { order })
}

/// Order and `traceparent` of each event that the second service handled.
type Billed = Log<(String, String)>;

fn billing(billed: &Billed) -> Router {
    let billed = billed.clone();
    Router::new().on(move |shipped: Event<Shipped>, context: Context| {
        let trace = context.trace().expect("a trace").traceparent.clone();
        billed.push((shipped.data.order, trace));
        async {}
    })
}

fn settings(group: &str, topic: &str) -> ConsumerSettings {
    let mut settings = ConsumerSettings::new(group, [topic]);
    settings.assignment = assignment();
    settings.commit_interval = Duration::from_millis(100);
    settings.retry.backoff.initial = Duration::from_millis(5);
    settings
}

/// Publishes one sampled event in a span of the producer, and one that is not sampled.
async fn place(publisher: &Publisher) {
    let placed = |order: &str| {
        let order = order.to_owned();
        Event::new(publisher.source(), Placed { order })
    };
    let sampled = placed("sampled");
    let published = publisher.publish(&sampled);
    let checkout = tracing::info_span!("checkout");
    let published = published.instrument(checkout).await;
    published.expect("the event is published");
    let trace = TraceContext {
        traceparent: UNSAMPLED.to_owned(),
        tracestate: None,
    };
    let record = publisher.encode(&placed("unsampled"), Some(&trace));
    let record = record.expect("the event can be encoded");
    let published = publisher.publish_record(record).await;
    published.expect("the event is published");
}

/// The shop: `checkout` publishes, `shipping` handles and publishes by its outbox, and `billing`
/// handles.
async fn be_a_shop() {
    let daemon = start_daemon().await;
    let cluster = TestKafka::start(KafkaKind::Mock).await;
    let cluster = cluster.expect("the mock needs nothing");
    for topic in [Placed::TOPIC, Shipped::TOPIC] {
        let created = cluster.create_topic(topic, 1).await;
        created.expect("the mock has no topics yet");
    }
    let kafka = cluster.config();
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/it/shop"));
    let publisher = publisher.expect("valid settings");
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let store = folder.path().join("shipping.db");
    let outbox = SqliteOutbox::open(&store).await.expect("the outbox opens");
    let inbox = SqliteInbox::open(&store, "shipping", "").await;
    let inbox = inbox.expect("the inbox opens").with_outbox(outbox.clone());
    let shipping = Router::new()
        .on(ship)
        .with_inbox(inbox.expect("the outbox is of the same file"));
    let billed = Billed::new();
    let shipping = Member::start_with(
        &kafka,
        settings("shipping", Placed::TOPIC),
        shipping,
        Some(publisher.clone()),
    );
    let billing = Member::start(
        &kafka,
        settings("billing", Shipped::TOPIC),
        billing(&billed),
    );
    let stop = CancellationToken::new();
    let relay = Relay::new(outbox, publisher.clone()).run(stop.clone());
    let relay = tokio::spawn(relay);

    place(&publisher).await;
    billed.reach("events are billed", 2).await;

    shipping.stop().await;
    billing.stop().await;
    stop.cancel();
    let relayed = relay.await.expect("the relay does not panic");
    assert_eq!(relayed.expect("it ends well").published, 2);
    daemon.finish_spans().await;
    let traces = billed.entries();
    let of = |order: &str| traces.iter().find(|(billed, _)| billed == order);
    let (_, unsampled) = of("unsampled").expect("it was billed");
    assert_eq!(unsampled[..36], UNSAMPLED[..36], "the same trace");
    assert!(unsampled.ends_with("-00"), "{unsampled} stays unsampled");
    let (_, sampled) = of("sampled").expect("it was billed");
    assert!(sampled.ends_with("-01"), "{sampled} is sampled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_one_trace_from_producer_to_last_handler() {
    if let Some(Role::Shop) = second_process::role() {
        return Box::pin(be_a_shop()).await;
    }
    let (endpoint, received) = collector().await;
    let test = "publish::traces::an_event_is_one_trace_from_producer_to_last_handler";
    run(test, &Role::Shop, &endpoint).await;

    let is_retry = |span: &Span| value(&span.attributes, "evenkeel.attempt").is_some();
    let checkout = received.only("checkout", |_| true);
    let sent = received.only("send it.placed", |_| true);
    let failed = received.only("process it.placed", |span| !is_retry(span));
    let handled = received.only("process it.placed", is_retry);
    let relayed = received.only("send it.shipped", |_| true);
    let billed = received.only("process it.shipped", |span| !is_retry(span));

    let nobody: &[u8] = &[];
    for (span, parent, kind) in [
        (&checkout, nobody, SpanKind::Internal),
        (&sent, &*checkout.span_id, SpanKind::Producer),
        (&failed, &*sent.span_id, SpanKind::Consumer),
        (&handled, &*sent.span_id, SpanKind::Consumer),
        (&relayed, &*handled.span_id, SpanKind::Producer),
        (&billed, &*handled.span_id, SpanKind::Consumer),
    ] {
        assert_eq!(span.trace_id, checkout.trace_id, "{}", span.name);
        assert_eq!(span.parent_span_id, parent, "{}", span.name);
        assert_eq!(span.kind, kind as i32, "{}", span.name);
    }
    assert_eq!(failed.links.len(), 0);
    let links: Vec<_> = handled.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(links, [&sent.span_id], "time passed before the retry");
    let status = |span: &Span| span.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(
        (status(&failed), status(&handled)),
        (2, 0),
        "error and unset"
    );

    let attribute = |span: &Span, key| text(&span.attributes, key);
    for (span, key, expected) in [
        (&handled, "messaging.system", "kafka"),
        (&handled, "messaging.destination.name", "it.placed"),
        (&handled, "messaging.destination.partition.id", "0"),
        (&handled, "messaging.operation.type", "process"),
        (&handled, "messaging.consumer.group.name", "shipping"),
        (&relayed, "messaging.operation.name", "send"),
    ] {
        assert_eq!(attribute(span, key).as_deref(), Some(expected), "{key}");
    }
    let offset = value(&handled.attributes, "messaging.kafka.offset");
    assert_eq!(offset, Some(&Value::IntValue(0)));
    assert!(attribute(&failed, "error.type").is_some());

    let spans = received.spans();
    for (name, operation) in [("poll", "receive"), ("commit", "settle")] {
        let mut spans = spans.iter().filter(|(_, span)| span.name == name);
        let (_, span) = spans.next().expect(name);
        assert_eq!(
            attribute(span, "messaging.operation.type").as_deref(),
            Some(operation)
        );
        assert_ne!(
            span.trace_id, checkout.trace_id,
            "{name} serves many events"
        );
    }
    let hex = |id: &[u8]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for (service, span) in &spans {
        assert_eq!(service, "it-shop");
        assert_ne!(
            hex(&span.trace_id),
            UNSAMPLED[3..35],
            "{} is sampled",
            span.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_delays_the_end_by_two_seconds() {
    if let Some(Role::Finish) = second_process::role() {
        let daemon = start_daemon().await;
        tracing::info_span!("work").in_scope(|| ());
        let began = Instant::now();
        daemon.finish_spans().await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        // A second end, and spans after it, do nothing.
        tracing::info_span!("late").in_scope(|| ());
        daemon.finish_spans().await;
        return;
    }
    // Connections wait in its backlog.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("its address");
    let test = "publish::traces::a_collector_that_hangs_delays_the_end_by_two_seconds";
    run(test, &Role::Finish, &format!("http://{address}")).await;
    drop(silent);
}
