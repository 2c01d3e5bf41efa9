//! The spans of a consumer, with OpenTelemetry's messaging attribute names: handling a record or a
//! batch, polling and committing.
//!
//! Owns the attribute names; `publisher/span.rs` has those of sending. Knows no exporter:
//! `tracing-opentelemetry` reads `otel.name`, `otel.kind` and `otel.status_code`, and a plain log
//! shows the rest.

use super::propagation::{continue_trace, is_exporting, link};
use crate::event::{Record, TraceContext};
use std::cell::Cell;
use std::fmt::Write as _;
use tracing::field::Empty;
use tracing::{Span, debug_span};

/// The target of [`process_span`]: `RUST_LOG=info,evenkeel::process=off` leaves these spans out of
/// the log, and keeps the log lines of handlers. `EVENKEEL_SPANS` decides what is exported.
pub const PROCESS_TARGET: &str = "evenkeel::process";

/// The target of the publisher's span `send`, at level DEBUG.
pub(crate) const SEND_TARGET: &str = "evenkeel::send";

/// The target of [`poll_span`], at level DEBUG.
const POLL_TARGET: &str = "evenkeel::poll";

/// The target of [`commit_span`], at level DEBUG.
const COMMIT_TARGET: &str = "evenkeel::commit";

/// The most links of a span: the default of OpenTelemetry's SDKs, which drop the others.
const LINKS_MAX: usize = 128;

/// Creates the span `process {topic}` of one attempt at a record, at level INFO.
///
/// Enter it (or instrument the handler's future with it) so that the handler's log lines name their
/// record. Without a listening subscriber it costs one check and reads nothing of the record.
/// `error.type` and `otel.status_code` are empty: record them if the attempt fails. Neither key nor
/// value is an attribute, as both may contain personal data.
///
/// While spans are exported (feature `otel`), its parent is the context in the record's header
/// `traceparent`. A later attempt has a link to it besides, because time has passed.
///
/// The consumer creates it around every attempt. A service whose handlers hand work to other tasks
/// instruments these with [`Span::current`](tracing::Span::current).
///
/// ```
/// use evenkeel::event::RecordBatchBuilder;
/// use evenkeel::telemetry::process_span;
///
/// let mut batch = RecordBatchBuilder::new();
/// let source = batch.source("shop.orders".into(), 0);
/// batch.push(source, 17, -1, None, Some(b"{}".as_slice()), []);
/// let record = batch.build(None).record(0).expect("one record");
/// let _entered = process_span(&record, "payments", 1).entered();
/// tracing::info!("names the record: topic, partition, offset and event id");
/// ```
pub fn process_span(record: &Record, group: &str, attempt: u32) -> Span {
    if !tracing::enabled!(target: PROCESS_TARGET, tracing::Level::INFO) {
        return Span::none();
    }
    let [id, source, ty] = event_attributes(record);
    let topic = record.topic();
    let value = record.value();
    let mut texts = SPAN_TEXTS.take();
    let (name, partition) = texts.of(topic, record.partition());
    let span = tracing::info_span!(
        target: PROCESS_TARGET,
        "process",
        otel.name = name,
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = topic,
        // A string by the convention, as other systems name their partitions.
        messaging.destination.partition.id = partition,
        messaging.kafka.offset = record.offset(),
        messaging.kafka.message.tombstone = value.is_none().then_some(true),
        messaging.consumer.group.name = group,
        messaging.message.id = id,
        messaging.message.body.size = value.map(|value| value.len() as i64),
        cloudevents.event_id = id,
        cloudevents.event_source = source,
        cloudevents.event_type = ty,
        // Signed, as OpenTelemetry has no unsigned numbers.
        evenkeel.attempt = (attempt > 1).then_some(i64::from(attempt)),
        error.type = Empty,
        otel.status_code = Empty,
    );
    SPAN_TEXTS.set(texts);
    continue_record(&span, record, attempt);
    span
}

thread_local! {
    /// Lent to one span at a time. A span that is created meanwhile gets an empty one.
    static SPAN_TEXTS: Cell<SpanTexts> = const { Cell::new(SpanTexts(String::new())) };
}

/// Memory for the texts of a span that its record does not have, used by one span after the other.
#[derive(Default)]
struct SpanTexts(String);

impl SpanTexts {
    /// The span's name and its partition.
    fn of(&mut self, topic: &str, partition: i32) -> (&str, &str) {
        self.0.clear();
        self.0.push_str("process ");
        self.0.push_str(topic);
        let name_end = self.0.len();
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{partition}");
        self.0.split_at(name_end)
    }
}

/// Puts the span of an attempt into the record's trace.
fn continue_record(span: &Span, record: &Record, attempt: u32) {
    if !is_exporting() {
        return;
    }
    if let Some(trace) = TraceContext::from_headers(record.headers()) {
        continue_trace(span, &trace);
        if attempt > 1 {
            link(span, &trace);
        }
    }
}

/// The span `process {topic}` of a batch of deliveries: a trace of its own, with a link to the span
/// or the context of each delivery, 128 at most. Only while spans are exported: the log lines of a
/// batch name no single record.
pub(crate) fn batch_span(
    topic: &str,
    group: &str,
    deliveries: usize,
    traces: impl Iterator<Item = TraceContext>,
) -> Span {
    if !is_exporting() || !tracing::enabled!(target: PROCESS_TARGET, tracing::Level::INFO) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: PROCESS_TARGET,
        parent: None,
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = topic,
        messaging.consumer.group.name = group,
        messaging.batch.message_count = deliveries as i64,
    );
    for trace in traces.take(LINKS_MAX) {
        link(&span, &trace);
    }
    span
}

/// The span of passing received records to the workers. It begins when the client has returned
/// them, so that an empty poll has none.
pub(crate) fn poll_span(group: &str, records: usize) -> Span {
    debug_span!(
        target: POLL_TARGET,
        "poll",
        otel.kind = "client",
        messaging.system = "kafka",
        messaging.operation.name = "poll",
        "messaging.operation.type" = "receive",
        messaging.consumer.group.name = group,
        messaging.batch.message_count = records as i64,
    )
}

/// The span of one commit request. `error.type` and `otel.status_code` are empty: record them if
/// it fails.
pub(crate) fn commit_span(group: &str, partitions: usize) -> Span {
    debug_span!(
        target: COMMIT_TARGET,
        "commit",
        otel.kind = "client",
        messaging.system = "kafka",
        messaging.operation.name = "commit",
        "messaging.operation.type" = "settle",
        messaging.consumer.group.name = group,
        evenkeel.partitions = partitions as i64,
        error.type = Empty,
        otel.status_code = Empty,
    )
}

/// Marks a span as failed, by this kind of error.
pub(crate) fn mark_failed(span: &Span, kind: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "error");
}

/// Id, source and type as in the headers: the last one of a name counts, and values that are not
/// UTF-8 are omitted. A structured event has them in its value, which is not parsed for a span.
fn event_attributes(record: &Record) -> [Option<&str>; 3] {
    let mut found = [None; 3];
    for (name, value) in record.headers() {
        let slot = match name {
            b"ce_id" => 0,
            b"ce_source" => 1,
            b"ce_type" => 2,
            _ => continue,
        };
        found[slot] = value.and_then(|value| std::str::from_utf8(value).ok());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::process_span;
    use crate::event::{Record, RecordBatchBuilder};
    use crate::telemetry::captured_log::capture;
    use serde_json::{Value, json};
    use tracing_subscriber::fmt::format::JsonFields;

    fn record(value: Option<&[u8]>) -> Record {
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source("shop.orders".into(), 3);
        let headers: [(&[u8], Option<&[u8]>); 4] = [
            (b"ce_id", Some(b"older")),
            (b"ce_id", Some(b"4711")),
            (b"ce_source", Some(b"\xff")),
            (b"ce_type", Some(b"shop.order-placed.v1")),
        ];
        batch.push(source, 42, -1, Some(b"key"), value, headers);
        batch.build(None).record(0).unwrap()
    }

    fn attributes(value: Option<&[u8]>, attempt: u32) -> Value {
        let subscriber = tracing_subscriber::fmt()
            .json()
            .fmt_fields(JsonFields::new());
        let log = capture(subscriber, || {
            let _entered = process_span(&record(value), "payments", attempt).entered();
            tracing::info!("handling");
        });
        let mut line: Value = serde_json::from_str(&log).unwrap();
        line["span"].take()
    }

    #[test]
    fn the_span_of_a_record_has_opentelemetrys_attribute_names() {
        let expected = json!({
            "name": "process",
            "otel.name": "process shop.orders",
            "otel.kind": "consumer",
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "shop.orders",
            "messaging.destination.partition.id": "3",
            "messaging.kafka.offset": 42,
            "messaging.consumer.group.name": "payments",
            "messaging.message.id": "4711",
            "messaging.message.body.size": 5,
            "cloudevents.event_id": "4711",
            "cloudevents.event_type": "shop.order-placed.v1",
        });
        assert_eq!(attributes(Some(b"value"), 1), expected);
    }

    #[test]
    fn a_span_marks_tombstones_and_further_attempts() {
        let attributes = attributes(None, 2);
        assert_eq!(attributes["messaging.kafka.message.tombstone"], json!(true));
        assert_eq!(attributes["messaging.message.body.size"], Value::Null);
        assert_eq!(attributes["evenkeel.attempt"], json!(2));
    }

    #[test]
    fn without_a_subscriber_there_is_no_span() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            assert!(process_span(&record(None), "payments", 1).is_none());
        });
    }
}
